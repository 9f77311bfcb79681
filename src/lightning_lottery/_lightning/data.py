"""Data loaders that start over, in the same order or in a new one, or go on in the middle of an epoch."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loops.fetchers import _DataFetcher, _DataLoaderIterDataFetcher
from lightning.pytorch.utilities import CombinedLoader
from torch.utils._pytree import tree_leaves

from lightning_lottery._lightning.generator_state import GeneratorState, reseed
from lightning_lottery.attributes import replace_attribute

# The seed of the samplers that Lightning makes for several processes.
_SEED = "PL_GLOBAL_SEED"


@dataclass
class LoaderRequest:
    """When loaders were last asked for.

    Attributes:
        randomness: The global generators before, and those of the loaders after.
        epoch: What Lightning notes of it, to know when to reload.
    """

    randomness: GeneratorState
    epoch: float


class DataOrder:
    """Loads the data of every round as a fresh fit does.

    A fit draws random numbers when it asks for the training loader and makes its iterator, and goes on drawing
    while it trains. Other things may happen between these moments, so each is remembered.

    Args:
        trainer: The Trainer, in ``setup`` of a fit.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._loop = trainer.fit_loop
        self._val_loop = trainer.fit_loop.epoch_loop.val_loop
        self._generators: dict[str, torch.Generator] = {}
        self._asked: dict[str, LoaderRequest] = {}
        self._iterator: GeneratorState | None = None  # before the iterator was made; None if the asking made it
        self._fetching = GeneratorState()  # before the first batch of the epoch, which draws as well
        self._before_loading: GeneratorState | None = None
        self._after_loading = GeneratorState()
        self._val: LoaderRequest | None = None
        self._repeat: GeneratorState | None = None
        self._pending: dict[str, Any] | None = None
        self._reload_epoch: float | None = None

    def watch(self) -> list[Callable[[], None]]:
        """Notes when loaders are asked for, their generators, and when an epoch makes its iterator.

        Returns:
            What to call to stop it.
        """
        epoch_loop: Any = self._loop.epoch_loop
        start = epoch_loop.on_run_start  # where every epoch but the first makes its iterator, after all hooks

        def on_run_start(fetcher: _DataFetcher) -> None:
            pending, self._pending = self._pending, None
            self._iterator, before = GeneratorState.capture(self._generators), fetcher.combined_loader._iterator
            start(fetcher)
            if pending is not None:
                self._go_on(fetcher, pending)
                return
            self._fetching = GeneratorState.capture(self._generators)
            if fetcher.combined_loader._iterator is before:  # nothing else tells whether a new one was made
                self._iterator = None

        sources = (("train", self._loop._data_source), ("val", self._val_loop._data_source))
        undo = [self._watch(*source) for source in sources]
        return [*undo, replace_attribute(epoch_loop, "on_run_start", on_run_start)]

    def _watch(self, kind: str, source: Any) -> Callable[[], None]:
        # All loaders come through dataloader() of a source, whether they were given to fit or come from a hook.
        # Afterwards it is too late: Lightning makes the iterator, which draws, before any hook is called.
        ask = source.dataloader

        def dataloader() -> Any:
            moment = GeneratorState.capture(self._generators)
            loaders = ask()
            found = {f"{kind}.{number}": g for number, g in enumerate(_own_generators(loaders))}
            self._generators.update(found)
            if self._repeat is not None:  # generators that were not known before the asking
                self._repeat.restore_own(found)
            states = GeneratorState.capture(self._generators).own
            # One of a loader that had not been asked for then was as it is now.
            for known in (moment, self._before_loading, self._after_loading):
                if known is not None:
                    known.own.update({name: s for name, s in states.items() if name not in known.own})
            moment.own.update({name: states[name] for name in found})
            self._asked[kind] = LoaderRequest(moment, self._trainer.current_epoch)
            if kind == "train" and self._before_loading is None:
                self._before_loading = moment
            return loaders

        return replace_attribute(source, "dataloader", dataloader)

    def begin(self) -> None:
        """Loads the data of the first round and remembers where the generators were."""
        fetcher = self._loop._data_fetcher
        if fetcher is not None and fetcher.fetched > 1:  # the tuner's, half consumed; one batch may be prefetched
            self._drop_train_loaders()
        if self._loop._combined_loader is None:  # else configure_optimizers asked for estimated_stepping_batches
            self._before_loading = None
        self._loop.setup_data()  # what run() does first
        self._after_loading = GeneratorState.capture(self._generators)
        # The sanity check has loaded the validation data, with random numbers of its own: it stays for all rounds.
        self._val = self._asked.get("val") if self._val_loop._combined_loader is not None else None
        self._keep_val_loaders()

    def _keep_val_loaders(self) -> None:
        names = ("_combined_loader", "_max_batches", "_last_val_dl_reload_epoch")
        self._val_state = {name: getattr(self._val_loop, name) for name in names}

    def start(self) -> dict[str, Any]:
        """What every round returns to, as plain values."""
        assert self._before_loading is not None
        return {
            "before_loading": vars(self._before_loading),
            "after_loading": vars(self._after_loading),
            "val": None if self._val is None else _plain(self._val),
            "seed": os.environ.get(_SEED),
        }

    def begin_from(self, start: dict[str, Any]) -> None:
        """Takes over what another process noted by :meth:`start`."""
        if start["seed"] is not None:
            os.environ[_SEED] = start["seed"]
        self._before_loading = GeneratorState(**start["before_loading"])
        self._after_loading = GeneratorState(**start["after_loading"])
        self._val = None if start["val"] is None else _asked(start["val"])
        self._reload_val(self._val)
        self._keep_val_loaders()

    def _reload_val(self, asked: LoaderRequest | None) -> None:
        """Loads the validation data as it was loaded at another moment, or not at all."""
        self._drop_val_loaders()
        if asked is not None:
            with _Repeated(self, asked):
                self._trainer.validating = True  # as Lightning does around this
                self._val_loop.setup_data()
                self._trainer.training = True
            self._val_loop._last_val_dl_reload_epoch = asked.epoch
            self._asked["val"] = asked

    def _drop_val_loaders(self) -> None:
        # As for training: what is not there is made anew.
        if self._val_loop._data_fetcher is not None:
            self._val_loop._data_fetcher.teardown()
        self._val_loop._data_fetcher = self._val_loop._combined_loader = None
        self._val_loop._last_val_dl_reload_epoch = float("-inf")

    def _drop_train_loaders(self) -> None:
        """Forgets the training loaders; the next round would find their iterators exhausted."""
        # The loop makes loaders and fetcher where it finds none, and offers nothing else that does.
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
        loop._last_train_dl_reload_epoch = float("-inf")

    def _restore_val_loaders(self) -> None:
        """Goes back to the validation loaders of the sanity check, or to none if there was no such check."""
        if self._val_loop._combined_loader is not self._val_state["_combined_loader"]:
            self._drop_val_loaders()
        for name, value in self._val_state.items():
            setattr(self._val_loop, name, value)
        if self._val is not None:
            self._asked["val"] = self._val

    def rewind(self, same_order: bool, point: dict[str, Any] | None = None) -> None:
        """Loads the data of another round.

        Args:
            same_order: Whether the generators return to where they were; else they go on drawing.
            point: What :meth:`moment` gave where the round is to begin, if that is not the start.
        """
        self._drop_train_loaders()
        self._restore_val_loaders()
        if point is not None:
            self._resume_train(point, same_order)
            return
        self._pending = self._reload_epoch = None
        if same_order and self._before_loading is not None:
            self._before_loading.restore(self._generators)
        self._loop.setup_data()
        if same_order:
            self._after_loading.restore(self._generators)

    def generators(self) -> dict[str, Any]:
        """Where all generators are now, as plain values."""
        return vars(GeneratorState.capture(self._generators))

    def restore_generators(self, state: dict[str, Any]) -> None:
        """Puts them back."""
        GeneratorState(**state).restore(self._generators)

    @contextmanager
    def undisturbed(self, seed: int) -> Iterator[None]:
        """Seeds all generators anew, and puts them back afterwards."""
        before = GeneratorState.capture(self._generators)
        reseed(seed, self._generators)
        try:
            yield
        finally:
            before.restore(self._generators)

    def moment(self) -> dict[str, Any]:
        """Where in the data the training stands now, as plain values."""
        return {
            **{kind: _plain(asked) for kind, asked in self._asked.items()},
            "iterator": None if self._iterator is None else vars(self._iterator),
            "fetching": vars(self._fetching),
            "now": vars(GeneratorState.capture(self._generators)),
        }

    def resume(self, moment: dict[str, Any]) -> None:
        """Loads all data as they were at a moment, and goes on from there."""
        self._reload_val(None if "val" not in moment else _asked(moment["val"]))
        self._drop_train_loaders()
        self._resume_train(moment, same_order=True)

    def _resume_train(self, moment: dict[str, Any], same_order: bool) -> None:
        if not same_order:
            self._loop.setup_data()
            self._pending = {}
            return
        asked = _asked(moment["train"])
        with _Repeated(self, asked):
            self._loop.setup_data()
        # A reload that is due in the next epoch waits until the generators have returned; the loop would load when
        # the training begins.
        self._loop._last_train_dl_reload_epoch, self._reload_epoch = float("inf"), asked.epoch
        self._asked["train"] = asked
        self._pending = moment
        self.return_to_now()

    def begin_epoch(self) -> None:
        """Makes an epoch begin where the resumed training stood, whatever the hooks before it have drawn."""
        self.return_to_now()
        if self._reload_epoch is not None:
            self._loop._last_train_dl_reload_epoch, self._reload_epoch = self._reload_epoch, None

    def return_to_now(self) -> None:
        """Puts the generators where the resumed training left them, if that is still to come."""
        if self._pending:
            GeneratorState(**self._pending["now"]).restore(self._generators)

    def _go_on(self, fetcher: _DataFetcher, moment: dict[str, Any]) -> None:
        """Brings the iterator of a resumed epoch to its next batch."""
        progress = self._loop.epoch_loop.batch_progress
        done = progress.current.completed
        if not done:  # the epoch is whole; below 2.5.3, and only there, Lightning has made its iterator by itself
            if self._trainer.current_epoch > 0 and self._iterator is not None:
                self._iterator.restore(self._generators)
                iter(fetcher)
            else:
                self._iterator = None
            self._fetching = GeneratorState.capture(self._generators)
            return
        # Lightning brings loaders with a state of their own to their place.
        if not all(hasattr(loader, "load_state_dict") for loader in fetcher.combined_loader.flattened):
            self._remake(fetcher, moment)
            _skip(fetcher, done, progress.is_last_batch)
        if moment:
            GeneratorState(**moment["now"]).restore(self._generators)

    def _remake(self, fetcher: _DataFetcher, moment: dict[str, Any]) -> None:
        """Makes the iterator of an epoch again, with the random numbers of then, if they are to return."""
        if not moment:
            self._iterator = GeneratorState.capture(self._generators)
            iter(fetcher)
            self._fetching = GeneratorState.capture(self._generators)
            return
        self._iterator = GeneratorState.load(moment["iterator"])
        if self._iterator is not None:
            self._iterator.restore(self._generators)
            iter(fetcher)
        self._fetching = GeneratorState(**moment["fetching"])
        self._fetching.restore(self._generators)


def _skip(fetcher: Any, count: int, is_all: bool) -> None:
    """Goes past the batches that an epoch has trained already."""
    fetcher.fetched = 0
    if is_all:
        fetcher.fetched, fetcher.done, fetcher.batches = count, True, []
        return
    batches = fetcher.iterator_wrapper if isinstance(fetcher, _DataLoaderIterDataFetcher) else fetcher
    for _ in range(count):
        next(batches)


class _Repeated:
    """While it lasts, what is asked for gets the random numbers and the epoch of an earlier asking."""

    def __init__(self, order: DataOrder, asked: LoaderRequest) -> None:
        self._order, self._asked = order, asked
        # What trainer.current_epoch reads, which has no setter.
        self._epochs: Any = order._loop.epoch_progress.current

    def __enter__(self) -> None:
        self._asked.randomness.restore(self._order._generators)
        self._order._repeat = self._asked.randomness
        self._epoch, self._epochs.completed = self._epochs.completed, int(self._asked.epoch)

    def __exit__(self, *_: object) -> None:
        self._order._repeat = None
        self._epochs.completed = self._epoch


def _plain(asked: LoaderRequest) -> dict[str, Any]:
    return {"randomness": vars(asked.randomness), "epoch": asked.epoch}


def _asked(values: dict[str, Any]) -> LoaderRequest:
    return LoaderRequest(GeneratorState(**values["randomness"]), values["epoch"])


def _samplers(loader: Any) -> Iterator[Any]:
    batches = getattr(loader, "batch_sampler", None)
    yield from (getattr(loader, "sampler", None), batches, getattr(batches, "sampler", None))


def _own_generators(loaders: Any) -> Iterator[torch.Generator]:
    flat = loaders.flattened if isinstance(loaders, CombinedLoader) else tree_leaves(loaders)
    for loader in flat:
        for holder in (loader, *_samplers(loader)):
            if isinstance(generator := getattr(holder, "generator", None), torch.Generator):
                yield generator
