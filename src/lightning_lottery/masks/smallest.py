"""Removes exactly the k smallest-scored survivors over many tensors."""

from collections.abc import Mapping, Sequence
from typing import overload

import torch
from torch import Tensor

from lightning_lottery.errors import ConfigurationError, TrainingError
from lightning_lottery.masks import sharding
from lightning_lottery.masks.selection import SmallestScores
from lightning_lottery.plain import check_integer


@overload
def prune_smallest(
    scores: Mapping[str, Tensor],
    masks: Mapping[str, Tensor] | None,
    k: int,
    magnitude: bool = False,
    out: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]: ...


@overload
def prune_smallest(
    scores: Sequence[Tensor],
    masks: Sequence[Tensor] | None,
    k: int,
    magnitude: bool = False,
    out: Sequence[Tensor] | None = None,
) -> list[Tensor]: ...


def prune_smallest(
    scores: Mapping[str, Tensor] | Sequence[Tensor],
    masks: Mapping[str, Tensor] | Sequence[Tensor] | None,
    k: int,
    magnitude: bool = False,
    out: Mapping[str, Tensor] | Sequence[Tensor] | None = None,
) -> dict[str, Tensor] | list[Tensor]:
    """Removes exactly the ``k`` smallest-scored survivors over all tensors together.

    Equal scores are removed in order of position: first by tensor, then by flat index.

    Args:
        scores: One floating-point tensor of any shape per group of weights, by name or as a list.
        masks: The survivors so far, boolean, shaped and keyed like ``scores``; ``None`` means all alive.
        k: How many to remove, 0 to the number of survivors.
        magnitude: Whether to rank by the absolute value of the scores.
        out: Boolean tensors to write the new masks to, contiguous, keyed and shaped like ``scores``, without
            shared memory with ``masks``; by default new tensors are made.

    Returns:
        New masks, keyed like ``scores``; ``masks`` is not changed.

    Raises:
        ConfigurationError: ``k`` is out of range, or the masks do not match the scores.
        TrainingError: A surviving score is NaN.

    Examples:
        >>> masks = prune_smallest({"w": torch.tensor([0.3, -0.1, 2.0])}, None, k=1, magnitude=True)
        >>> masks["w"].tolist()
        [True, False, True]
    """
    if isinstance(scores, Mapping):
        names = list(scores)
        given = [_in_order(names, masks), _in_order(names, out)]
        kept = _prune_smallest(names, list(scores.values()), given[0], k, magnitude, given[1])
        return dict(zip(names, kept, strict=True))
    if isinstance(masks, Mapping) or isinstance(out, Mapping):
        raise ConfigurationError("scores is a list, so masks and out must be lists too.")
    names = [f"tensor {index}" for index in range(len(scores))]
    alive, into = (None if some is None else list(some) for some in (masks, out))
    return _prune_smallest(names, list(scores), alive, k, magnitude, into)


def _in_order(names: list[str], masks: Mapping[str, Tensor] | Sequence[Tensor] | None) -> list[Tensor] | None:
    if masks is None:
        return None
    if not isinstance(masks, Mapping) or masks.keys() != set(names):
        raise ConfigurationError(f"The scores are for {names}. Pass a mask for each of these names, and no other.")
    return [masks[name] for name in names]


@torch.no_grad()
def _prune_smallest(
    names: list[str],
    scores: list[Tensor],
    masks: list[Tensor] | None,
    k: int,
    magnitude: bool,
    out: list[Tensor] | None,
) -> list[Tensor]:
    for name, score in zip(names, scores, strict=True):
        if not score.is_floating_point():
            raise ConfigurationError(
                f"The scores of {name!r} are {score.dtype}; they must be floating-point numbers."
            )
    _check_masks("masks", names, scores, masks)
    _check_masks("out", names, scores, out)
    places = [place for target in out or () if (place := sharding.local(target)).numel()]
    addresses = {place.data_ptr() for place in places}
    if len(addresses) < len(places) or not all(place.is_contiguous() for place in places):
        raise ConfigurationError("The tensors in out must be contiguous, and no two of them may share memory.")
    if addresses & {sharding.local(mask).data_ptr() for mask in masks or ()}:
        raise ConfigurationError(
            "The tensors in out must not share memory with masks, which are read until the end."
        )
    total = sum(score.numel() for score in scores) if masks is None else sum(sharding.count(masks))
    k = check_integer("k", k, 0, "k=100")
    if k > total:
        raise ConfigurationError(f"k={k} must be an integer from 0 to {total}, the number of survivors.")
    kept = [_empty_mask(score) for score in scores] if out is None else out
    if k == 0:
        for index, target in enumerate(kept):
            local = sharding.local(target)
            local.fill_(True) if masks is None else local.copy_(sharding.local(masks[index]))
        return kept
    if SmallestScores(scores, masks, kept, magnitude).remove(k, total):
        _refuse_nan(names, scores, masks)
    return kept


def _empty_mask(score: Tensor) -> Tensor:
    part = sharding.local(score)
    return sharding.like(torch.empty(part.shape, dtype=torch.bool, device=part.device), score)


def _check_masks(what: str, names: list[str], scores: list[Tensor], masks: list[Tensor] | None) -> None:
    if masks is None:
        return
    if len(masks) != len(scores):
        raise ConfigurationError(
            f"There are {len(scores)} scores but {len(masks)} tensors in {what}; pass one per score."
        )
    for name, score, mask in zip(names, scores, masks, strict=True):
        if mask.shape != score.shape or mask.dtype != torch.bool:
            raise ConfigurationError(
                f"In {what}, {name!r} is {mask.dtype} of shape {tuple(mask.shape)}; it must be boolean, of the "
                f"scores' shape {tuple(score.shape)}."
            )


def _refuse_nan(names: list[str], scores: list[Tensor], masks: list[Tensor] | None) -> None:
    for index, name in enumerate(names):
        nan = sharding.local(scores[index]).isnan()
        if masks is not None:
            nan &= sharding.local(masks[index])
        if sharding.count([sharding.like(nan, scores[index])]) != [0]:
            raise nan_error(name)


def nan_error(name: str) -> TrainingError:
    """The error for scores with NaN."""
    return TrainingError(
        f"The scores of {name!r} contain NaN and cannot be ranked. Training has probably diverged: lower the "
        "learning rate, clip gradients, or prune less."
    )
