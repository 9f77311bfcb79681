"""Data loaders: restarting them in the same or a new order, and resuming them in the middle of an epoch."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loops.fetchers import _DataFetcher

from lightning_lottery._lightning import generators, loaders
from lightning_lottery.attributes import replace_attribute
from lightning_lottery.storage import DataMoment, DataStart, GeneratorState, LoaderRequest

# The seed of the samplers that Lightning creates for several processes.
_SEED = "PL_GLOBAL_SEED"
_VAL_ATTRIBUTES = ("_combined_loader", "_max_batches", "_last_val_dl_reload_epoch")


@dataclass(frozen=True)
class _Resumption:
    """A resumed epoch: its position, or ``None`` for the number of batches alone, in another order."""

    moment: DataMoment | None


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
        self._requests: dict[str, LoaderRequest] = {}
        # Before the iterator was created; None if setup_data created it.
        self._iterator: GeneratorState | None = None
        # Before the first batch of the epoch, which also draws.
        self._fetching = GeneratorState()
        self._before_loading: GeneratorState | None = None
        self._after_loading = GeneratorState()
        self._val: LoaderRequest | None = None
        self._val_state: dict[str, Any] = {}
        self._repeat: GeneratorState | None = None
        # The position to continue at when the next epoch starts.
        self._resumption: _Resumption | None = None
        self._reload_epoch: float | None = None
        # In a round with other random numbers, their seed, and the seed of samplers in the rounds before.
        self._round_seed: int | None = None
        self._sampler_seed: str | None = None

    def watch(self) -> list[Callable[[], None]]:
        """Tracks requests of loaders, and when an epoch creates its iterator.

        Returns:
            Functions that stop the tracking.
        """
        epoch_loop: Any = self._loop.epoch_loop
        start = epoch_loop.on_run_start  # creates the iterator of every epoch except the first, after all hooks

        def on_run_start(fetcher: _DataFetcher) -> None:
            resumption, self._resumption = self._resumption, None
            self._iterator, before = self._capture(), fetcher.combined_loader._iterator
            start(fetcher)
            if resumption is not None:
                self._continue_epoch(fetcher, resumption.moment)
                return
            self._fetching = self._capture()
            if fetcher.combined_loader._iterator is before:  # no iterator was created
                self._iterator = None

        sources = (("train", self._loop._data_source), ("val", self._val_loop._data_source))
        undo = [self._watch(*source) for source in sources]
        return [*undo, replace_attribute(epoch_loop, "on_run_start", on_run_start), self._use_common_seed]

    def _watch(self, kind: str, source: Any) -> Callable[[], None]:
        # All loaders come from dataloader() of a source, whether they were passed to fit or come from a hook. Any
        # later hook is too late: Lightning creates the iterator, which draws random numbers, before it.
        ask = source.dataloader

        def dataloader() -> Any:
            moment = self._capture()
            requested = ask()
            found = {f"{kind}.{number}": g for number, g in enumerate(loaders.own_generators(requested))}
            new = {name: g for name, g in found.items() if self._generators.get(name) is not g}
            self._generators.update(found)
            if self._repeat is not None:  # generators that were unknown before the request
                generators.restore_own(self._repeat, found)
            elif self._round_seed is not None:  # a hook may create a generator with a fixed seed in every epoch
                generators.reseed_own(self._round_seed + self._trainer.current_epoch, new)
            states = self._capture().own
            # A loader that had not been requested at that moment had the same generator state as now.
            for known in (moment, self._before_loading, self._after_loading):
                if known is not None:
                    known.own.update({name: s for name, s in states.items() if name not in known.own})
            moment.own.update({name: states[name] for name in found})
            self._requests[kind] = LoaderRequest(moment, self._trainer.current_epoch)
            if kind == "train" and self._before_loading is None:
                self._before_loading = moment
            return requested

        return replace_attribute(source, "dataloader", dataloader)

    def _capture(self) -> GeneratorState:
        return generators.capture(self._generators)

    def _restore(self, state: GeneratorState) -> None:
        generators.restore(state, self._generators)

    def save_start(self) -> None:
        """Loads the data of the first round and saves the state of the generators."""
        fetcher = self._loop._data_fetcher
        if fetcher is not None and fetcher.fetched > 1:  # a tuner has used it; one prefetched batch is normal
            self._drop_train_loaders()
        if self._loop._combined_loader is None:  # otherwise configure_optimizers used estimated_stepping_batches
            self._before_loading = None
        self._loop.setup_data()  # run() does this first
        self._after_loading = self._capture()
        # The sanity check has loaded the validation data, with its own random numbers. They stay for all rounds.
        self._val = self._requests.get("val") if self._val_loop._combined_loader is not None else None
        self._keep_val_loaders()

    def _keep_val_loaders(self) -> None:
        self._val_state = {name: getattr(self._val_loop, name) for name in _VAL_ATTRIBUTES}

    def start(self) -> DataStart:
        """The state that every round returns to."""
        assert self._before_loading is not None, "only after save_start or restore_start"
        return DataStart(self._before_loading, self._after_loading, self._val, os.environ.get(_SEED))

    def restore_start(self, start: DataStart) -> None:
        """Restores a state that another process has saved with :meth:`start`."""
        if start.seed is not None:
            os.environ[_SEED] = start.seed
        self._before_loading, self._after_loading, self._val = start.before_loading, start.after_loading, start.val
        self._reload_val(self._val)
        self._keep_val_loaders()

    def _reload_val(self, request: LoaderRequest | None) -> None:
        """Loads the validation data as at an earlier request; drops it if there was none."""
        self._drop_val_loaders()
        if request is not None:
            with self._repeated(request):
                self._trainer.validating = True  # as Lightning does here
                self._val_loop.setup_data()
                self._trainer.training = True
            self._val_loop._last_val_dl_reload_epoch = request.epoch
            self._requests["val"] = request

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
            loaders.to_first_epoch(loop._combined_loader)
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
            self._requests["val"] = self._val

    def _use_seed(self, seed: int | None) -> None:
        """Sets the seed of samplers that Lightning creates; ``None`` for that of the other rounds."""
        self._use_common_seed()
        if seed is not None:
            self._round_seed, self._sampler_seed = seed, os.environ.get(_SEED)
            os.environ[_SEED] = str(seed % 2**32)

    def _use_common_seed(self) -> None:
        if self._round_seed is None:
            return
        if self._sampler_seed is None:
            os.environ.pop(_SEED, None)
        else:
            os.environ[_SEED] = self._sampler_seed
        self._round_seed = self._sampler_seed = None

    def rewind(self, same_order: bool, point: DataMoment | None = None, seed: int | None = None) -> None:
        """Loads the data of another round.

        Args:
            same_order: Whether the generators are rewound; otherwise they continue.
            point: The result of :meth:`moment` at the point where the round starts, if that is not the beginning.
            seed: A seed for all generators, instead of rewinding them.
        """
        self._use_seed(seed)
        if seed is not None:
            generators.reseed(seed, self._generators)
            same_order = False
        self._drop_train_loaders()
        self._restore_val_loaders()
        if point is not None:
            self._resume_train(point, same_order)
            return
        self._resumption = self._reload_epoch = None
        if same_order and self._before_loading is not None:
            self._restore(self._before_loading)
        self._loop.setup_data()
        if same_order:
            self._restore(self._after_loading)

    def generators(self) -> GeneratorState:
        """The state of all generators."""
        return self._capture()

    def restore_generators(self, state: GeneratorState) -> None:
        """Restores the result of :meth:`generators`."""
        self._restore(state)

    @contextmanager
    def isolated(self, seed: int) -> Iterator[None]:
        """Seeds all generators, and restores them on exit."""
        before = self._capture()
        generators.reseed(seed, self._generators)
        try:
            yield
        finally:
            self._restore(before)

    def moment(self) -> DataMoment:
        """The current position in the data."""
        return DataMoment(
            train=self._requests["train"],
            val=self._requests.get("val"),
            iterator=self._iterator,
            fetching=self._fetching,
            now=self._capture(),
        )

    def restore_moment(self, moment: DataMoment, seed: int | None = None) -> None:
        """Loads all data, and continues at a position saved by :meth:`moment`.

        Args:
            moment: The position.
            seed: What :meth:`rewind` was given for this round.
        """
        self._use_seed(seed)
        self._reload_val(moment.val)
        self._drop_train_loaders()
        self._resume_train(moment, same_order=True)

    def _resume_train(self, moment: DataMoment, same_order: bool) -> None:
        if not same_order:
            self._loop.setup_data()
            self._resumption = _Resumption(None)
            return
        with self._repeated(moment.train):
            self._loop.setup_data()
        # A reload that is due in the next epoch must wait until the generators are restored. The loop would load
        # when the training starts.
        self._loop._last_train_dl_reload_epoch, self._reload_epoch = float("inf"), moment.train.epoch
        self._requests["train"] = moment.train
        self._resumption = _Resumption(moment)
        self.restore_current()

    def begin_epoch(self) -> None:
        """Restores the generators before the first epoch of a resumed training; hooks may have drawn numbers."""
        self.restore_current()
        if self._reload_epoch is not None:
            self._loop._last_train_dl_reload_epoch, self._reload_epoch = self._reload_epoch, None

    def restore_current(self) -> None:
        """Restores the generators of a resumed training, until its first epoch has begun."""
        if self._resumption is not None and self._resumption.moment is not None:
            self._restore(self._resumption.moment.now)

    def _continue_epoch(self, fetcher: _DataFetcher, moment: DataMoment | None) -> None:
        """Advances the iterator of a resumed epoch to its next batch."""
        progress = self._loop.epoch_loop.batch_progress
        done = progress.current.completed
        if not done:  # a whole epoch is left; since 2.5.3 Lightning does not create its iterator when resuming
            if self._trainer.current_epoch > 0 and self._iterator is not None:
                self._restore(self._iterator)
                iter(fetcher)
            else:
                self._iterator = None
            self._fetching = self._capture()
            return
        # Lightning itself advances stateful loaders.
        if not all(hasattr(loader, "load_state_dict") for loader in fetcher.combined_loader.flattened):
            self._remake(fetcher, moment)
            loaders.skip(fetcher, done, progress.is_last_batch)
        if moment is not None:
            self._restore(moment.now)

    def _remake(self, fetcher: _DataFetcher, moment: DataMoment | None) -> None:
        """Creates the iterator of an epoch again, with the same random numbers if they are to be restored."""
        if moment is None:
            self._iterator = self._capture()
            iter(fetcher)
            self._fetching = self._capture()
            return
        self._iterator = moment.iterator
        if self._iterator is not None:
            self._restore(self._iterator)
            iter(fetcher)
        self._fetching = moment.fetching
        self._restore(self._fetching)

    @contextmanager
    def _repeated(self, request: LoaderRequest) -> Iterator[None]:
        """Repeats an earlier request: inside, requests use its random numbers and epoch."""
        # trainer.current_epoch reads this attribute and has no setter.
        epochs: Any = self._loop.epoch_progress.current
        before = epochs.completed
        self._restore(request.randomness)
        self._repeat, epochs.completed = request.randomness, int(request.epoch)
        try:
            yield
        finally:
            self._repeat, epochs.completed = None, before
