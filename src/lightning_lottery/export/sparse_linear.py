"""Linear layers for inference that use the zeros in their weights."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

# Values of an input that are multiplied at once: 1 MiB, about what the cache of one core holds.
_VALUES_AT_ONCE = 2**18


class _Packed(nn.Module):
    """A layer that keeps a packed weight beside its parameters, and packs it anew when they are replaced.

    It may share the memory of the parameters, so that values which are copied into them count at once.
    """

    _weight: Any = None

    def _pack(self) -> Any:
        """Packs the weight."""
        raise NotImplementedError

    def _packed(self) -> Any:
        """The packed weight."""
        if self._weight is None:
            with torch.inference_mode(False), torch.no_grad():
                self._weight = self._pack()
        return self._weight

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "_weight":
            vars(self).pop("_weight", None)
        super().__setattr__(name, value)

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        """Moves or converts the parameters."""
        self._weight = None
        return super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        """Loads the parameters, or replaces them."""
        self._weight = None
        super()._load_from_state_dict(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_weight"}


class SparseLinear(_Packed):
    """A linear layer that stores only the weights that are not zero, as compressed sparse rows (CSR).

    For inference: its parameters need no gradient, but gradients flow through to its inputs.

    Args:
        weight: Shape (outputs, inputs). On a CPU, PyTorch multiplies by sparse matrices of float32 and float64
            only.
        bias: Shape (outputs,), or ``None``.
        select: Whether to copy the inputs that are used before they are multiplied. That is faster if few are.
    """

    rows: Tensor
    columns: Tensor
    used: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None, select: bool = False) -> None:
        super().__init__()
        weight = weight.detach()
        self.out_features, self.in_features = weight.shape
        used = weight.ne(0).any(dim=0).nonzero().flatten() if select else None
        with _no_beta_warning():
            compressed = (weight if used is None else weight[:, used]).to_sparse_csr()
        # Indices of 32 bits, which the products use internally, take half of the space.
        self.register_buffer("rows", compressed.crow_indices().int())
        self.register_buffer("columns", compressed.col_indices().int())
        self.register_buffer("used", None if used is None else used.int())
        self.values = nn.Parameter(compressed.values(), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)
        self._selects = select
        self._samples_at_once = max(32, _VALUES_AT_ONCE // self.in_features)

    def forward(self, inputs: Tensor) -> Tensor:
        """Multiplies inputs of shape (…, inputs); the result has shape (…, outputs) and may not be contiguous."""
        # Every check counts: a call takes less than 0.1 ms.
        if self._selects and inputs.shape[-1] != self.in_features:
            raise RuntimeError(f"Inputs of shape {tuple(inputs.shape)} do not have {self.in_features} features.")
        if inputs.dim() != 2:
            flat = inputs.reshape(-1, self.in_features)
            return self.forward(flat).reshape(*inputs.shape[:-1], self.out_features)
        weight = self._weight or self._packed()
        try:
            if inputs.shape[0] <= self._samples_at_once:
                return _product(inputs, *weight).t()
            parts = torch.split(inputs, self._samples_at_once)
            return torch.cat([_product(part, *weight) for part in parts], dim=1).t()
        except RuntimeError:
            if not torch.is_autocast_enabled(inputs.device.type):
                raise
        # Autocast has converted the operands to a type without sparse products.
        device = inputs.device.type
        with torch.autocast(device, enabled=False):
            return self.forward(inputs.to(self.values.dtype)).to(torch.get_autocast_dtype(device))

    def _pack(self) -> tuple[Tensor, Tensor | None, Tensor | None]:
        with _no_beta_warning():
            weight = torch.sparse_csr_tensor(
                self.rows, self.columns, self.values, self.stored_shape, check_invariants=False
            )
        return weight, None if self.bias is None else self.bias.unsqueeze(1), self.used

    @property
    def stored_shape(self) -> tuple[int, int]:
        """The shape of the sparse matrix: outputs, and the inputs that are multiplied."""
        return self.out_features, self.in_features if self.used is None else len(self.used)

    @property
    def density(self) -> float:
        """The fraction of weights that are stored."""
        return self.values.numel() / (self.out_features * self.in_features)

    def extra_repr(self) -> str:
        """Shapes and density, as shown by ``print``."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}, "
            f"density={self.density:.4f}"
        )


class SemiStructuredLinear(_Packed):
    """A linear layer with at most 2 weights in every 4 consecutive inputs, for NVIDIA GPUs that support it.

    Its parameters are those of a linear layer, so that it saves time, not space. It has not run on a GPU yet.

    Args:
        weight: Shape (outputs, inputs), float16 or bfloat16, on a CUDA device.
        bias: Shape (outputs,), or ``None``.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Multiplies inputs of shape (…, inputs); the result has shape (…, outputs)."""
        return nn.functional.linear(inputs, self._packed(), self.bias)

    def _pack(self) -> Any:
        return torch.sparse.to_sparse_semi_structured(self.weight.detach())


@contextmanager
def _no_beta_warning() -> Iterator[None]:
    """Hides PyTorch's warning that sparse matrices are a beta feature, since exports are always compared."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        yield


def _product(inputs: Tensor, weight: Tensor, bias: Tensor | None, used: Tensor | None) -> Tensor:
    """Multiplies inputs of shape (samples, inputs) by a sparse matrix; the result has shape (outputs, samples)."""
    columns = inputs.t() if used is None else inputs.t().index_select(0, used)
    product: Tensor = weight @ columns if bias is None else torch.addmm(bias, weight, columns)
    return product


def is_on_gpu(weight: Tensor) -> bool:
    """Whether a weight is on a GPU that may have semi-structured products."""
    return weight.is_cuda


def has_two_of_four(weight: Tensor) -> bool:
    """Whether at most 2 weights are other than zero in every 4 consecutive inputs, as with ``NofM(2, 4)``."""
    if weight.shape[1] % 4:
        return False
    return int(weight.detach().ne(0).view(len(weight), -1, 4).sum(-1).max()) <= 2
