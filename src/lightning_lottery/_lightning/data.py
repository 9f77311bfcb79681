"""Data loaders that start over, in the same order or in a new one."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from lightning.fabric.utilities.seed import _collect_rng_states, _set_rng_states
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor
from torch.utils._pytree import tree_leaves


@dataclass
class _Randomness:
    """The state of all generators: the global ones, and those that data loaders own."""

    common: dict[str, Any]
    own: list[tuple[torch.Generator, Tensor]]

    @classmethod
    def capture(cls, generators: list[torch.Generator]) -> "_Randomness":
        # Lightning's own list of global generators: Python, NumPy, PyTorch, CUDA.
        return cls(_collect_rng_states(), [(generator, generator.get_state()) for generator in generators])

    def restore(self) -> None:
        _set_rng_states(self.common)
        for generator, state in self.own:
            generator.set_state(state)


class DataOrder:
    """Loads the data of every round as a fresh fit does.

    A fit draws random numbers when it asks for the training loader and makes its iterator, and goes on drawing
    while it trains. Other things may happen between the two, so both moments are remembered.

    Args:
        trainer: The Trainer, in ``setup`` of a fit.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._loop = trainer.fit_loop
        self._generators: list[torch.Generator] = []
        self._before_loading: _Randomness | None = None
        self._after_loading: _Randomness | None = None
        self._is_first_round = True

    def watch(self) -> list[Callable[[], None]]:
        """Notes the generators of data loaders when they are first asked for.

        Returns:
            What to call to stop it.
        """
        val_loop = self._loop.epoch_loop.val_loop
        return [self._watch(self._loop._data_source, True), self._watch(val_loop._data_source, False)]

    def _watch(self, source: Any, is_training: bool) -> Callable[[], None]:
        # All loaders come through dataloader() of a source, whether they were given to fit or come from a hook.
        # Afterwards it is too late: Lightning makes the iterator, which draws, before any hook is called.
        ask = source.dataloader

        def dataloader() -> Any:
            if is_training and self._before_loading is None:
                self._before_loading = _Randomness.capture(self._generators)
            loaders = ask()
            # A generator that a hook makes anew is right as it is; what lasts has been seen in the first round.
            for generator in _own_generators(loaders) if self._is_first_round else ():
                if not any(generator is known for known in self._generators):
                    self._generators.append(generator)
                    for moment in (self._before_loading, self._after_loading):
                        if moment is not None:
                            moment.own.append((generator, generator.get_state()))
            return loaders

        source.dataloader = dataloader
        return lambda: delattr(source, "dataloader")

    def begin(self) -> None:
        """Loads the data of the first round and remembers where the generators were."""
        fetcher = self._loop._data_fetcher
        if fetcher is not None and fetcher.fetched > 1:  # the tuner's, half consumed; one batch may be prefetched
            self._drop_train_loaders()
        if self._loop._combined_loader is None:  # else configure_optimizers asked for estimated_stepping_batches
            self._before_loading = None
        self._loop.setup_data()  # what run() does first
        self._after_loading = _Randomness.capture(self._generators)
        # The sanity check has loaded the validation data, with random numbers of its own: it stays for all rounds.
        val_loop = self._loop.epoch_loop.val_loop
        names = ("_combined_loader", "_max_batches", "_last_val_dl_reload_epoch")
        self._val_state = {name: getattr(val_loop, name) for name in names}

    def _drop_train_loaders(self) -> None:
        """Forgets the training loaders; the next round would find their iterators exhausted."""
        loop = self._loop
        if loop._combined_loader is not None:
            for sampler in (
                sampler for loader in loop._combined_loader.flattened for sampler in _samplers(loader)
            ):
                if callable(set_epoch := getattr(sampler, "set_epoch", None)):
                    set_epoch(0)
        if loop._data_fetcher is not None:
            loop._data_fetcher.teardown()  # ends worker processes
        loop._data_fetcher = None
        loop._combined_loader = None

    def _restore_val_loaders(self) -> None:
        """Goes back to the validation loaders of the sanity check, or to none if there was no such check."""
        val_loop = self._loop.epoch_loop.val_loop
        if (
            val_loop._combined_loader is not self._val_state["_combined_loader"]
            and val_loop._data_fetcher is not None
        ):
            val_loop._data_fetcher.teardown()
            val_loop._data_fetcher = None
        for name, value in self._val_state.items():
            setattr(val_loop, name, value)

    def rewind(self, same_order: bool) -> None:
        """Loads the data of another round.

        Args:
            same_order: Whether the generators return to where they were; else they go on drawing.
        """
        self._is_first_round = False
        self._drop_train_loaders()
        self._restore_val_loaders()
        if same_order and self._before_loading is not None:
            self._before_loading.restore()
        self._loop.setup_data()
        if same_order and self._after_loading is not None:
            self._after_loading.restore()


def _samplers(loader: Any) -> Iterator[Any]:
    batches = getattr(loader, "batch_sampler", None)
    yield from (getattr(loader, "sampler", None), batches, getattr(batches, "sampler", None))


def _own_generators(loaders: Any) -> Iterator[torch.Generator]:
    flat = loaders.flattened if isinstance(loaders, CombinedLoader) else tree_leaves(loaders)
    for loader in flat:
        for holder in (loader, *_samplers(loader)):
            if isinstance(generator := getattr(holder, "generator", None), torch.Generator):
                yield generator
