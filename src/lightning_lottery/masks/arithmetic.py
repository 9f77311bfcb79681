"""Counting and comparing masks.

A mask is ``True`` where a weight survives.
"""

import hashlib
from collections.abc import Mapping

from torch import Tensor

from lightning_lottery.masks import sharding
from lightning_lottery.masks.packing import pack

Masks = dict[str, Tensor]


def kept(masks: Mapping[str, Tensor]) -> int:
    """Number of surviving weights."""
    return sum(sharding.count(list(masks.values())))


def prunable(masks: Mapping[str, Tensor]) -> int:
    """Number of prunable weights, surviving or not."""
    return sum(mask.numel() for mask in masks.values())


def density(masks: Mapping[str, Tensor]) -> float:
    """Kept / prunable, in [0, 1]; 1 if nothing is prunable."""
    return kept(masks) / prunable(masks) if prunable(masks) else 1.0


def fingerprint(masks: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and bits, as 16 hexadecimal digits. Equal masks have equal fingerprints."""
    digest = hashlib.sha256()
    for name in sorted(masks):
        digest.update(f"{name}:{tuple(masks[name].shape)}:".encode())
        digest.update(pack(sharding.whole(masks[name])).numpy().tobytes())
    return digest.hexdigest()[:16]
