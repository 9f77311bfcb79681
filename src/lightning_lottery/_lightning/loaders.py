"""Parts of data loaders: their samplers, their generators, and the batches that they have already returned."""

from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch.loops.fetchers import _DataLoaderIterDataFetcher
from lightning.pytorch.utilities import CombinedLoader
from torch.utils._pytree import tree_leaves


def samplers(loader: Any) -> Iterator[Any]:
    """The samplers of a loader; ``None`` for those that it lacks."""
    batches = getattr(loader, "batch_sampler", None)
    yield from (getattr(loader, "sampler", None), batches, getattr(batches, "sampler", None))


def own_generators(loaders: Any) -> Iterator[torch.Generator]:
    """The generators that loaders or their samplers were given."""
    flat = loaders.flattened if isinstance(loaders, CombinedLoader) else tree_leaves(loaders)
    for loader in flat:
        for holder in (loader, *samplers(loader)):
            if isinstance(generator := getattr(holder, "generator", None), torch.Generator):
                yield generator


def to_first_epoch(loaders: CombinedLoader) -> None:
    """Tells the samplers that epoch 0 begins."""
    for loader in loaders.flattened:
        for sampler in samplers(loader):
            if callable(set_epoch := getattr(sampler, "set_epoch", None)):
                set_epoch(0)


def skip(fetcher: Any, count: int, is_all: bool) -> None:
    """Skips the batches that an epoch has already trained.

    Args:
        fetcher: Lightning's fetcher, whose iterator was created.
        count: The number of batches to skip.
        is_all: Whether these are all batches of the epoch.
    """
    fetcher.fetched = 0
    if is_all:
        fetcher.fetched, fetcher.done, fetcher.batches = count, True, []
        return
    batches = fetcher.iterator_wrapper if isinstance(fetcher, _DataLoaderIterDataFetcher) else fetcher
    for _ in range(count):
        next(batches)
