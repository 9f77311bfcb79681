"""Data loaders: restarting them in the same or a new order, and resuming them in the middle of an epoch."""

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

# The seed of the samplers that Lightning creates for several processes.
_SEED = "PL_GLOBAL_SEED"


@dataclass
class LoaderRequest:
    """The moment when data loaders were last requested.

    Attributes:
        randomness: The global generators before the request, and the loaders' own generators after it.
        epoch: The epoch that Lightning stores to decide when to reload.
    """

    randomness: GeneratorState
    epoch: float


class DataOrder:
    """Loads the data of every round like a fresh fit.

    A fit draws random numbers when it requests the training loader, when it creates the iterator, and during
    training. Other code may run in between, so the state of the generators is saved at each of these moments.

    Args:
        trainer: The Trainer, in ``setup`` of a fit.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._loop = trainer.fit_loop
        self._val_loop = trainer.fit_loop.epoch_loop.val_loop
        self._generators: dict[str, torch.Generator] = {}
        self._asked: dict[str, LoaderRequest] = {}
        self._iterator: GeneratorState | None = (
            None  # before the iterator was created; None if setup_data created it
        )
        self._fetching = GeneratorState()  # before the first batch of the epoch, which also draws
        self._before_loading: GeneratorState | None = None
        self._after_loading = GeneratorState()
        self._val: LoaderRequest | None = None
        self._repeat: GeneratorState | None = None
        self._pending: dict[str, Any] | None = None
        self._reload_epoch: float | None = None

    def watch(self) -> list[Callable[[], None]]:
        """Tracks requests of loaders, and when an epoch creates its iterator.

        Returns:
            Functions that stop the tracking.
        """
        epoch_loop: Any = self._loop.epoch_loop
        start = epoch_loop.on_run_start  # creates the iterator of every epoch except the first, after all hooks

        def on_run_start(fetcher: _DataFetcher) -> None:
            pending, self._pending = self._pending, None
            self._iterator, before = GeneratorState.capture(self._generators), fetcher.combined_loader._iterator
            start(fetcher)
            if pending is not None:
                self._continue_epoch(fetcher, pending)
                return
            self._fetching = GeneratorState.capture(self._generators)
            if fetcher.combined_loader._iterator is before:  # no iterator was created
                self._iterator = None

        sources = (("train", self._loop._data_source), ("val", self._val_loop._data_source))
        undo = [self._watch(*source) for source in sources]
        return [*undo, replace_attribute(epoch_loop, "on_run_start", on_run_start)]

    def _watch(self, kind: str, source: Any) -> Callable[[], None]:
        # All loaders come from dataloader() of a source, whether they were passed to fit or come from a hook. Any
        # later hook is too late: Lightning creates the iterator, which draws random numbers, before it.
        ask = source.dataloader

        def dataloader() -> Any:
            moment = GeneratorState.capture(self._generators)
            loaders = ask()
            found = {f"{kind}.{number}": g for number, g in enumerate(_own_generators(loaders))}
            self._generators.update(found)
            if self._repeat is not None:  # generators that were unknown before the request
                self._repeat.restore_own(found)
            states = GeneratorState.capture(self._generators).own
            # A loader that had not been requested at that moment had the same generator state as now.
            for known in (moment, self._before_loading, self._after_loading):
                if known is not None:
                    known.own.update({name: s for name, s in states.items() if name not in known.own})
            moment.own.update({name: states[name] for name in found})
            self._asked[kind] = LoaderRequest(moment, self._trainer.current_epoch)
            if kind == "train" and self._before_loading is None:
                self._before_loading = moment
            return loaders

        return replace_attribute(source, "dataloader", dataloader)

    def save_start(self) -> None:
        """Loads the data of the first round and saves the state of the generators."""
        fetcher = self._loop._data_fetcher
        if fetcher is not None and fetcher.fetched > 1:  # a tuner has used it; one prefetched batch is normal
            self._drop_train_loaders()
        if self._loop._combined_loader is None:  # otherwise configure_optimizers used estimated_stepping_batches
            self._before_loading = None
        self._loop.setup_data()  # run() does this first
        self._after_loading = GeneratorState.capture(self._generators)
        # The sanity check has loaded the validation data, with its own random numbers. They stay for all rounds.
        self._val = self._asked.get("val") if self._val_loop._combined_loader is not None else None
        self._keep_val_loaders()

    def _keep_val_loaders(self) -> None:
        names = ("_combined_loader", "_max_batches", "_last_val_dl_reload_epoch")
        self._val_state = {name: getattr(self._val_loop, name) for name in names}

    def start(self) -> dict[str, Any]:
        """The state that every round returns to, as plain values."""
        assert self._before_loading is not None
        return {
            "before_loading": vars(self._before_loading),
            "after_loading": vars(self._after_loading),
            "val": None if self._val is None else _plain(self._val),
            "seed": os.environ.get(_SEED),
        }

    def restore_start(self, start: dict[str, Any]) -> None:
        """Restores a state that another process has saved with :meth:`start`."""
        if start["seed"] is not None:
            os.environ[_SEED] = start["seed"]
        self._before_loading = GeneratorState(**start["before_loading"])
        self._after_loading = GeneratorState(**start["after_loading"])
        self._val = None if start["val"] is None else _asked(start["val"])
        self._reload_val(self._val)
        self._keep_val_loaders()

    def _reload_val(self, asked: LoaderRequest | None) -> None:
        """Loads the validation data as at an earlier request; drops it if there was none."""
        self._drop_val_loaders()
        if asked is not None:
            with _Repeated(self, asked):
                self._trainer.validating = True  # as Lightning does here
                self._val_loop.setup_data()
                self._trainer.training = True
            self._val_loop._last_val_dl_reload_epoch = asked.epoch
            self._asked["val"] = asked

    def _drop_val_loaders(self) -> None:
        # As for training: missing loaders are created again.
        if self._val_loop._data_fetcher is not None:
            self._val_loop._data_fetcher.teardown()
        self._val_loop._data_fetcher = self._val_loop._combined_loader = None
        self._val_loop._last_val_dl_reload_epoch = float("-inf")

    def _drop_train_loaders(self) -> None:
        """Drops the training loaders, since their iterators are exhausted."""
        # The loop creates loaders and fetcher only if they are missing.
        loop = self._loop
        if loop._combined_loader is not None:
            for sampler in (
                sampler for loader in loop._combined_loader.flattened for sampler in _samplers(loader)
            ):
                if callable(set_epoch := getattr(sampler, "set_epoch", None)):
                    set_epoch(0)
        if loop._data_fetcher is not None:
            loop._data_fetcher.teardown()  # ends the worker processes
        loop._data_fetcher = None
        loop._combined_loader = None
        loop._last_train_dl_reload_epoch = float("-inf")

    def _restore_val_loaders(self) -> None:
        """Restores the validation loaders of the sanity check; without a sanity check, drops the loaders."""
        if self._val_loop._combined_loader is not self._val_state["_combined_loader"]:
            self._drop_val_loaders()
        for name, value in self._val_state.items():
            setattr(self._val_loop, name, value)
        if self._val is not None:
            self._asked["val"] = self._val

    def rewind(self, same_order: bool, point: dict[str, Any] | None = None) -> None:
        """Loads the data of another round.

        Args:
            same_order: Whether the generators are rewound; otherwise they continue.
            point: The result of :meth:`moment` at the point where the round starts, if that is not the beginning.
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
        """The state of all generators, as plain values."""
        return vars(GeneratorState.capture(self._generators))

    def restore_generators(self, state: dict[str, Any]) -> None:
        """Restores the result of :meth:`generators`."""
        GeneratorState(**state).restore(self._generators)

    @contextmanager
    def isolated(self, seed: int) -> Iterator[None]:
        """Seeds all generators, and restores them on exit."""
        before = GeneratorState.capture(self._generators)
        reseed(seed, self._generators)
        try:
            yield
        finally:
            before.restore(self._generators)

    def moment(self) -> dict[str, Any]:
        """The current position in the data, as plain values."""
        return {
            **{kind: _plain(asked) for kind, asked in self._asked.items()},
            "iterator": None if self._iterator is None else vars(self._iterator),
            "fetching": vars(self._fetching),
            "now": vars(GeneratorState.capture(self._generators)),
        }

    def restore_moment(self, moment: dict[str, Any]) -> None:
        """Loads all data, and continues at a position saved by :meth:`moment`."""
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
        # A reload that is due in the next epoch must wait until the generators are restored. The loop would load
        # when the training starts.
        self._loop._last_train_dl_reload_epoch, self._reload_epoch = float("inf"), asked.epoch
        self._asked["train"] = asked
        self._pending = moment
        self.restore_current()

    def begin_epoch(self) -> None:
        """Restores the generators before the first epoch of a resumed training; hooks may have drawn numbers."""
        self.restore_current()
        if self._reload_epoch is not None:
            self._loop._last_train_dl_reload_epoch, self._reload_epoch = self._reload_epoch, None

    def restore_current(self) -> None:
        """Restores the generators of a resumed training, until its first epoch has begun."""
        if self._pending:
            GeneratorState(**self._pending["now"]).restore(self._generators)

    def _continue_epoch(self, fetcher: _DataFetcher, moment: dict[str, Any]) -> None:
        """Advances the iterator of a resumed epoch to its next batch."""
        progress = self._loop.epoch_loop.batch_progress
        done = progress.current.completed
        if not done:  # a whole epoch is left; since 2.5.3 Lightning does not create its iterator when resuming
            if self._trainer.current_epoch > 0 and self._iterator is not None:
                self._iterator.restore(self._generators)
                iter(fetcher)
            else:
                self._iterator = None
            self._fetching = GeneratorState.capture(self._generators)
            return
        # Lightning itself advances stateful loaders.
        if not all(hasattr(loader, "load_state_dict") for loader in fetcher.combined_loader.flattened):
            self._remake(fetcher, moment)
            _skip(fetcher, done, progress.is_last_batch)
        if moment:
            GeneratorState(**moment["now"]).restore(self._generators)

    def _remake(self, fetcher: _DataFetcher, moment: dict[str, Any]) -> None:
        """Creates the iterator of an epoch again, with the same random numbers if they are to be restored."""
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
    """Skips the batches that an epoch has already trained."""
    fetcher.fetched = 0
    if is_all:
        fetcher.fetched, fetcher.done, fetcher.batches = count, True, []
        return
    batches = fetcher.iterator_wrapper if isinstance(fetcher, _DataLoaderIterDataFetcher) else fetcher
    for _ in range(count):
        next(batches)


class _Repeated:
    """Repeats an earlier request: inside, requests use its random numbers and epoch."""

    def __init__(self, order: DataOrder, asked: LoaderRequest) -> None:
        self._order, self._asked = order, asked
        # trainer.current_epoch reads this attribute and has no setter.
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
