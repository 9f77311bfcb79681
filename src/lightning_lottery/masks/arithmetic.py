"""Counting, packing and comparing masks.

A mask is ``True`` where a weight survives.
"""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from lightning_lottery.masks import sharding

Masks = dict[str, Tensor]


def kept(masks: Mapping[str, Tensor]) -> int:
    """Number of surviving weights."""
    return sum(sharding.count(list(masks.values())))


def prunable(masks: Mapping[str, Tensor]) -> int:
    """Number of prunable weights, surviving or not."""
    return sum(mask.numel() for mask in masks.values())


def density(masks: Mapping[str, Tensor]) -> float:
    """Kept / prunable, in [0, 1]."""
    return kept(masks) / prunable(masks)


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
    return torch.from_numpy(bits).bool().reshape(tuple(shape))


def fingerprint(masks: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and bits, as 16 hexadecimal digits. Equal masks have equal fingerprints."""
    digest = hashlib.sha256()
    for name in sorted(masks):
        digest.update(f"{name}:{tuple(masks[name].shape)}:".encode())
        digest.update(pack(sharding.whole(masks[name])).numpy().tobytes())
    return digest.hexdigest()[:16]
