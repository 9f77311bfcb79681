"""Masks as bits, eight in a byte."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def pack(mask: Tensor) -> Tensor:
    """Packs a mask to bits.

    Args:
        mask: Boolean, any shape, n entries.

    Returns:
        ``uint8`` of shape (ceil(n / 8),) on the CPU; the first entry is the highest bit of the first byte.
    """
    return torch.from_numpy(np.packbits(mask.detach().cpu().numpy().reshape(-1)))


def unpack(packed: Tensor, shape: Sequence[int]) -> Tensor:
    """Undoes :func:`pack`.

    Args:
        packed: ``uint8`` of shape (ceil(n / 8),).
        shape: The mask's shape, of n entries in all.

    Returns:
        The boolean mask.

    Raises:
        ValueError: The number of bytes does not fit the shape.
    """
    size = torch.Size(shape).numel()
    if packed.dtype != torch.uint8 or packed.shape != ((size + 7) // 8,):
        raise ValueError(f"{tuple(packed.shape)} bytes of {packed.dtype} cannot be a mask of {tuple(shape)}")
    bits = np.unpackbits(packed.cpu().numpy(), count=size)
    return torch.from_numpy(bits.view(np.bool_)).reshape(tuple(shape))
