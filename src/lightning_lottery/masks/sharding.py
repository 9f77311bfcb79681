"""Sharded tensors (DTensor), where every process holds a part.

All functions also accept plain tensors, and then need no process group. Functions marked as *collective* must be
called by all processes.
"""

from collections.abc import Sequence
from math import prod

import numpy as np
import torch
from torch import Tensor, distributed

try:
    from torch.distributed.tensor import DTensor, Replicate, Shard
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
except ImportError:  # before PyTorch 2.5 it lives elsewhere and lacks what is needed here
    DTensor = None  # type: ignore[assignment,misc]

from lightning_lottery.errors import ConfigurationError


def is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor is a DTensor."""
    return DTensor is not None and isinstance(tensor, DTensor)


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor in this process; it shares memory with the tensor."""
    return tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def whole(tensor: Tensor) -> Tensor:
    """The whole tensor, on every process. Collective."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def like(values: Tensor, tensor: Tensor) -> Tensor:
    """Makes a tensor, sharded like another one, from the values of this process's part."""
    if not is_sharded(tensor):
        return values
    return DTensor.from_local(  # needed for uneven shards
        values,
        tensor.device_mesh,  # type: ignore[attr-defined]
        tensor.placements,  # type: ignore[attr-defined]
        run_check=False,
        shape=tensor.shape,
        stride=tensor.stride(),
    )


def place(values: Tensor, tensor: Tensor) -> Tensor:
    """Moves a tensor that every process holds whole to the device of another one, and shards it alike."""
    if not is_sharded(tensor) or is_sharded(values):
        return values.to(tensor.device)
    shape, offset = _extent(tensor)
    part = values[tuple(slice(o, o + n) for o, n in zip(offset, shape, strict=True))]
    return like(part.to(tensor.device).contiguous(), tensor)


def _extent(tensor: Tensor) -> tuple[Sequence[int], Sequence[int]]:
    """Shape of this process's part, and its offset in the tensor."""
    for placement in tensor.placements:  # type: ignore[attr-defined]
        if type(placement) not in (Shard, Replicate):
            raise ConfigurationError(
                f"Weights placed as {placement} are not supported. Use weights that are sharded along a dimension "
                "(Shard) or copied (Replicate)."
            )
    shape, offset = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)  # type: ignore[attr-defined]
    return shape, offset


def counts_here(tensor: Tensor) -> bool:
    """Whether this process counts its part; of several processes with the same part, only one does."""
    if not is_sharded(tensor):
        return distributed.get_rank() == 0
    if not bool((tensor.device_mesh.mesh == 0).any()):  # type: ignore[attr-defined]
        return False  # a mesh that is a copy of another one; the mesh with process 0 counts
    where = zip(tensor.placements, tensor.device_mesh.get_coordinate(), strict=True)  # type: ignore[attr-defined]
    return all(coordinate == 0 for placement, coordinate in where if isinstance(placement, Replicate))


def count(masks: Sequence[Tensor]) -> list[int]:
    """The number of true entries of each mask. Collective if any mask is sharded."""
    if not any(map(is_sharded, masks)):
        return list(map(_count, masks))
    counts = torch.stack([local(mask).count_nonzero() * counts_here(mask) for mask in masks])
    distributed.all_reduce(counts)
    return [int(number) for number in counts]


def _count(mask: Tensor) -> int:
    if mask.device.type == "cpu":  # NumPy counts booleans ten times as fast
        return int(np.count_nonzero(mask.numpy()))
    return int(mask.count_nonzero())


def positions(tensor: Tensor, places: Tensor) -> Tensor:
    """Converts flat indices in this process's part to flat indices in the whole tensor."""
    if not is_sharded(tensor):
        return places
    shape, offset = _extent(tensor)
    indices = torch.unravel_index(places, tuple(shape))
    strides = [prod(tensor.shape[dim + 1 :]) for dim in range(tensor.dim())]
    return sum(((i + o) * s for i, o, s in zip(indices, offset, strides, strict=True)), torch.zeros_like(places))
