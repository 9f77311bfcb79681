"""Masks as boolean tensors, plain or sharded: exact selection, counting, packing."""

from lightning_lottery.masks import arithmetic, sharding
from lightning_lottery.masks.arithmetic import Masks, density, fingerprint, kept, prunable
from lightning_lottery.masks.coding import CodedMask, Coding
from lightning_lottery.masks.packing import pack, unpack
from lightning_lottery.masks.sharding import count, is_sharded, like, local, place
from lightning_lottery.masks.smallest import nan_error, prune_smallest

__all__ = [
    "CodedMask",
    "Coding",
    "Masks",
    "arithmetic",
    "count",
    "density",
    "fingerprint",
    "is_sharded",
    "kept",
    "like",
    "local",
    "nan_error",
    "pack",
    "place",
    "prunable",
    "prune_smallest",
    "sharding",
    "unpack",
]
