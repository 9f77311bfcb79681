"""Masks as plain boolean tensors: exact selection, counting, packing.

A mask is ``True`` where a weight survives. Nothing here knows about modules or training.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import overload

import torch
from torch import Tensor

from lightning_lottery.errors import ConfigurationError, TrainingError

Masks = dict[str, Tensor]


@overload
def prune_smallest(
    scores: Mapping[str, Tensor], masks: Mapping[str, Tensor] | None, k: int, magnitude: bool = False
) -> dict[str, Tensor]: ...


@overload
def prune_smallest(
    scores: Sequence[Tensor], masks: Sequence[Tensor] | None, k: int, magnitude: bool = False
) -> list[Tensor]: ...


def prune_smallest(
    scores: Mapping[str, Tensor] | Sequence[Tensor],
    masks: Mapping[str, Tensor] | Sequence[Tensor] | None,
    k: int,
    magnitude: bool = False,
) -> dict[str, Tensor] | list[Tensor]:
    """Removes exactly the ``k`` smallest-scored survivors over all tensors together.

    Equal scores are removed in order of position: first by tensor, then by flat index.

    Args:
        scores: One floating-point tensor of any shape per group of weights, by name or as a list.
        masks: The survivors so far, boolean, shaped and keyed like ``scores``; ``None`` means all alive.
        k: How many to remove, 0 to the number of survivors.
        magnitude: Rank by the absolute value of the scores.

    Returns:
        New masks, keyed like ``scores``; the given ones are not changed.

    Raises:
        ConfigurationError: ``k`` is out of range, or masks and scores do not belong together.
        TrainingError: A surviving score is NaN.

    Example:
        >>> masks = prune_smallest({"w": torch.tensor([0.3, -0.1, 2.0])}, None, k=1, magnitude=True)
        >>> masks["w"].tolist()
        [True, False, True]
    """
    if isinstance(scores, Mapping):
        if masks is not None and not (isinstance(masks, Mapping) and masks.keys() == scores.keys()):
            raise ConfigurationError(f"The scores are for {list(scores)}; there must be a mask for each of them.")
        alive = None if masks is None else [masks[name] for name in scores]
        return dict(
            zip(scores, _prune_smallest(list(scores), list(scores.values()), alive, k, magnitude), strict=True)
        )
    if isinstance(masks, Mapping):
        raise ConfigurationError("The scores came as a list, so the masks must be a list as well.")
    names = [f"tensor {index}" for index in range(len(scores))]
    alive = None if masks is None else list(masks)
    return _prune_smallest(names, list(scores), alive, k, magnitude)


@torch.no_grad()
def _prune_smallest(
    names: list[str], scores: list[Tensor], masks: list[Tensor] | None, k: int, magnitude: bool
) -> list[Tensor]:
    if masks is None:
        masks = [torch.ones_like(score, dtype=torch.bool) for score in scores]
    for name, score, mask in zip(names, scores, masks, strict=True):
        if mask.shape != score.shape or mask.dtype != torch.bool:
            raise ConfigurationError(
                f"The mask of {name!r} is {mask.dtype} of shape {tuple(mask.shape)}; it must be boolean, of the "
                f"scores' shape {tuple(score.shape)}."
            )
    if magnitude:
        scores = [score.abs() for score in scores]
    surviving = [score[mask] for score, mask in zip(scores, masks, strict=True)]
    for name, values in zip(names, surviving, strict=True):
        if values.isnan().any():
            raise TrainingError(f"{name!r} holds NaN, which has no rank: the training has diverged.")
    total = sum(values.numel() for values in surviving)
    if not isinstance(k, int) or not 0 <= k <= total:
        raise ConfigurationError(f"k={k} weights cannot be removed from {total} survivors.")
    if k == 0:
        return [mask.clone() for mask in masks]

    # torch.cat finds a type that holds all values; a bfloat16 tensor must not be compared in bfloat16.
    together = torch.cat([values.to(surviving[0].device) for values in surviving])
    threshold = together.kthvalue(k).values
    ties_to_remove = k - int((together < threshold).count_nonzero())
    kept = []
    for score, mask in zip(scores, masks, strict=True):
        score, limit = score.to(threshold.dtype), threshold.to(score.device)
        keep = (mask & (score >= limit)).flatten()
        if ties_to_remove:
            ties = (keep & (score == limit).flatten()).nonzero().flatten()[:ties_to_remove]
            keep[ties] = False
            ties_to_remove -= ties.numel()
        kept.append(keep.view(mask.shape))
    return kept


def kept(masks: Mapping[str, Tensor]) -> int:
    """Number of surviving weights."""
    return sum(int(mask.count_nonzero()) for mask in masks.values())


def prunable(masks: Mapping[str, Tensor]) -> int:
    """Number of weights that the masks speak of, surviving or not."""
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
    bits = mask.flatten().to("cpu", torch.uint8)
    padded = torch.nn.functional.pad(bits, (0, -bits.numel() % 8)).view(-1, 8)
    places = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.uint8)
    return (padded * places).sum(dim=1, dtype=torch.uint8)


def unpack(packed: Tensor, shape: Sequence[int]) -> Tensor:
    """Undoes :func:`pack`.

    Args:
        packed: ``uint8`` of shape (ceil(n / 8),).
        shape: The mask's shape, of n entries in all.

    Returns:
        The boolean mask.

    Raises:
        ValueError: The bytes are not as many as the shape needs.
    """
    size = torch.Size(shape).numel()
    if packed.dtype != torch.uint8 or packed.shape != ((size + 7) // 8,):
        raise ValueError(f"{tuple(packed.shape)} bytes of {packed.dtype} cannot be a mask of {tuple(shape)}")
    places = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.uint8)
    bits = packed.unsqueeze(1).bitwise_and(places).ne(0)
    return bits.view(-1)[:size].reshape(tuple(shape))


def fingerprint(masks: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and bits, as 16 hexadecimal digits: equal masks have equal ones."""
    digest = hashlib.sha256()
    for name in sorted(masks):
        digest.update(f"{name}:{tuple(masks[name].shape)}:".encode())
        digest.update(pack(masks[name]).numpy().tobytes())
    return digest.hexdigest()[:16]
