"""Weights that are divided by their norms, of which at least one must stay."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from lightning_lottery.pruning.kinds import norms_by_name


def largest(scores: Tensor, dims: Sequence[int]) -> Tensor:
    """Marks the largest score at each position along some dimensions; of equal scores, the last one.

    Args:
        scores: A tensor of any shape.
        dims: The dimensions. If empty, a single score is marked.

    Returns:
        A boolean tensor of the same shape.
    """
    others = [dim for dim in range(scores.dim()) if dim not in dims]
    apart = scores.permute(*dims, *others)
    flat = apart.reshape(math.prod(apart.shape[: len(dims)]), -1)
    place = flat.shape[1] - 1 - flat.flip(1).argmax(dim=1, keepdim=True)
    marked = torch.zeros_like(flat, dtype=torch.bool).scatter_(1, place, True).view(apart.shape)
    return marked.permute(*(sorted(range(scores.dim()), key=[*dims, *others].__getitem__))).contiguous()


def emptied_norms(masks: Mapping[str, Tensor], module: nn.Module) -> list[str]:
    """The parameters of which all weights of a norm are removed, so that others would be divided by zero."""
    norms = {name: dims for name, dims in norms_by_name(module).items() if name in masks}
    return [n for n, dims in norms.items() if not bool(masks[n][largest(masks[n].float(), dims)].all())]
