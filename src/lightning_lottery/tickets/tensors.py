"""Handles unusual tensors in a network: sparse, complex, quantised, or with a shape that changes."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from lightning_lottery.masks import sharding

# The parts of a sparse tensor, named like its methods; compressed indices first.
_SPARSE = {
    torch.sparse_coo: ("indices", "values"),
    torch.sparse_csr: ("crow_indices", "col_indices", "values"),
    torch.sparse_bsr: ("crow_indices", "col_indices", "values"),
    torch.sparse_csc: ("ccol_indices", "row_indices", "values"),
    torch.sparse_bsc: ("ccol_indices", "row_indices", "values"),
}
_LAYOUTS = {str(layout).removeprefix("torch."): layout for layout in _SPARSE}
_COMPLEX = "complex128"  # safetensors supports only single-precision complex numbers
KINDS = (*_LAYOUTS, _COMPLEX)
Kind = dict[str, Any]


@torch.no_grad()
def put(owner: nn.Module, name: str, value: Tensor) -> None:
    """Sets the values of a parameter or buffer, in place if shape and layout allow it.

    Args:
        owner: The layer.
        name: The name of the parameter or buffer in the layer. If its shape or layout differs from ``value``, for
            example because a buffer has grown, it takes those of ``value``.
        value: The values, on any device. Unsharded values are sharded like the tensor in the layer.
    """
    there = getattr(owner, name)
    target, value = sharding.local(there), sharding.local(sharding.place(value, there))
    if target.layout != value.layout or target.layout not in (torch.strided, torch.sparse_coo):
        fresh = value.to(target.device, copy=True)  # the data of compressed tensors cannot be replaced
        is_parameter = isinstance(there, nn.Parameter)
        setattr(owner, name, nn.Parameter(fresh, there.requires_grad) if is_parameter else fresh)
    elif target.layout == torch.strided and target.shape == value.shape and not _is_expanded(target):
        target.copy_(value)
    else:
        target.data = value.to(target.device, copy=True)


def _is_expanded(tensor: Tensor) -> bool:
    return any(size > 1 and stride == 0 for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


def moved_like(state: Any, present: Any) -> Any:
    """Moves the tensors in a state that was read from a file to the devices of those in the present state.

    Args:
        state: Tensors in lists, tuples and dictionaries.
        present: The present state. If it has another structure, ``state`` is returned unchanged, on the CPU.
    """
    (values, structure), (others, other_structure) = tree_flatten(state), tree_flatten(present)
    if structure != other_structure:
        return state
    pairs = zip(values, others, strict=True)
    moved = [a.to(b.device) if isinstance(a, Tensor) and isinstance(b, Tensor) else a for a, b in pairs]
    return tree_unflatten(moved, structure)


def values_of(tensor: Tensor) -> Tensor:
    """The numbers in a dense or sparse tensor; an empty tensor for a quantised or nested one."""
    if tensor.layout in _SPARSE:
        return (tensor.coalesce() if tensor.layout == torch.sparse_coo else tensor).values()
    if tensor.is_quantized or tensor.is_nested:
        return torch.zeros(0)
    is_tiny = tensor.is_floating_point() and tensor.element_size() == 1  # eight-bit floats have no arithmetic
    return tensor.float() if is_tiny else tensor


def is_finite(tensor: Tensor) -> bool:
    """Whether all numbers in a tensor (if sharded, in this process's part) are finite."""
    return bool(values_of(sharding.local(tensor)).isfinite().all())


def take_apart(tensor: Tensor) -> tuple[dict[str, Tensor], Kind | None]:
    """Splits a tensor into plain CPU tensors that a safetensors file can store.

    Args:
        tensor: Any tensor.

    Returns:
        The parts by name, and what else :func:`put_together` needs. For a plain tensor, a single part named
        ``""``, and ``None``.

    Raises:
        TypeError: The tensor is quantised or nested.
    """
    if tensor.layout in _SPARSE:
        whole: Any = tensor.detach().coalesce() if tensor.layout == torch.sparse_coo else tensor.detach()
        parts = {name: getattr(whole, name)() for name in _SPARSE[tensor.layout]}
        values, kind = take_apart(parts.pop("values"))
        described = {
            "layout": str(tensor.layout).removeprefix("torch."),
            "shape": list(tensor.shape),
            "values": kind,
        }
        moved = {name: part.cpu().contiguous() for name, part in parts.items()}
        return {**moved, "values": next(iter(values.values()))}, described
    if tensor.is_quantized or tensor.is_nested:
        raise TypeError(f"it is {'quantised' if tensor.is_quantized else 'nested'}")
    plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    if plain.dtype == torch.complex128:
        return {"real": torch.view_as_real(plain).contiguous()}, {"layout": _COMPLEX}
    return {"": plain}, None


def bytes_of(tensor: Tensor) -> memoryview:
    """The bytes of a plain CPU tensor, without copying them unless they are in another order."""
    flat = tensor.contiguous().view(-1)
    if flat.numel() < 2:  # PyTorch calls any stride of these contiguous, but does not view them as bytes
        flat = torch.empty(flat.shape, dtype=flat.dtype).copy_(flat)
    return flat.view(torch.uint8).numpy().data


def put_together(parts: Mapping[str, Tensor], kind: Kind | None) -> Tensor:
    """Reassembles a tensor from the result of :func:`take_apart`.

    Raises:
        KeyError: A part is missing.
        ValueError: The parts do not match.
    """
    if kind is None:
        return parts[""]
    if kind["layout"] == _COMPLEX:
        return torch.view_as_complex(parts["real"].clone())  # must be aligned to 16 bytes
    layout = _LAYOUTS[kind["layout"]]
    indices = [parts[name] for name in _SPARSE[layout][:-1]]
    values = put_together({"": parts["values"], "real": parts["values"]}, kind["values"])
    with torch.sparse.check_sparse_tensor_invariants():  # type: ignore[no-untyped-call]
        if layout == torch.sparse_coo:
            return torch.sparse_coo_tensor(indices[0], values, kind["shape"], is_coalesced=True)
        return torch.sparse_compressed_tensor(indices[0], indices[1], values, kind["shape"], layout=layout)
