"""Every touch of Lightning's internals: many trainings inside one ``Trainer.fit``.

Nothing else in the package uses a private name of Lightning. A comment at each touch says why, and the oldest
version in which it was seen to be there, 2.5.0 unless it says otherwise.
"""

import copy
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from lightning.fabric.utilities.optimizer import _optimizers_to_device
from lightning.fabric.utilities.seed import _collect_rng_states, _set_rng_states
from lightning.pytorch import Callback, LightningModule, Trainer, callbacks
from lightning.pytorch.callbacks import ModelCheckpoint, Timer
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.loops.loop import _Loop
from lightning.pytorch.loops.progress import _BaseProgress
from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor
from torch.utils._pytree import tree_leaves

# What ModelCheckpoint remembers of a training. Its load_state_dict leaves most of it alone and warns about
# another folder. The last name is there since 2.6.
_CHECKPOINT_MEMORY = (
    "best_k_models",
    "best_model_path",
    "best_model_score",
    "current_score",
    "kth_best_model_path",
    "kth_value",
    "last_model_path",
    "_last_checkpoint_saved",
    "_last_global_step_saved",
    "_defer_save_until_validation",
)
# What averaging callbacks remember besides the averaged network, which their setup() makes anew.
_AVERAGING_MEMORY = (
    "momenta",
    "n_averaged",
    "_init_n_averaged",
    "_initialized",
    "_latest_update_epoch",
    "_latest_update_step",
    "_scheduler_state",
    "_swa_scheduler",
)
# WeightAveraging is there since 2.5.3.
_AVERAGING = tuple(
    getattr(callbacks, name)
    for name in ("StochasticWeightAveraging", "WeightAveraging")
    if hasattr(callbacks, name)
)

# The folders that the checkpoints of all rounds lie in, by callback: one may serve several fits.
_CHECKPOINT_FOLDERS: WeakKeyDictionary[ModelCheckpoint, Any] = WeakKeyDictionary()


@dataclass
class _Randomness:
    """The state of all generators: the global ones, and those that data loaders own."""

    common: dict[str, Any]
    own: list[tuple[torch.Generator, Tensor]]

    @classmethod
    def capture(cls, generators: list[torch.Generator]) -> "_Randomness":
        return cls(_collect_rng_states(), [(generator, generator.get_state()) for generator in generators])

    def restore(self) -> None:
        _set_rng_states(self.common)
        for generator, state in self.own:
            generator.set_state(state)


@dataclass
class FinalRound:
    """What the Trainer looked like after the last ticket, to come back to after the controls."""

    weights: dict[str, Tensor]
    checkpoints: list[tuple[Callback, dict[str, Any]]]
    metrics: tuple[dict[str, Any], ...]


@dataclass
class RoundsFit:
    """Turns the fit loop of a Trainer into one that trains round after round.

    Attributes:
        trainer: The Trainer, in ``setup`` of a fit.
        owner: The callback that decides; its presence among the Trainer's callbacks switches rounds on.
    """

    trainer: Trainer
    owner: Callback
    _undo: list[Callable[[], None]] = field(default_factory=list)
    _generators: list[torch.Generator] = field(default_factory=list)
    _before_loading: _Randomness | None = None
    _after_loading: _Randomness | None = None

    def install(
        self, begin: Callable[[], bool], boundary: Callable[[], bool], bar: Callable[[], dict[str, str]]
    ) -> None:
        """Installs the loop over rounds.

        Args:
            begin: Called when training is about to begin; says whether rounds are to be trained at all.
            boundary: Called after each round; says whether another one follows.
            bar: Texts for the progress bar, by name.
        """
        loop, trainer, owner = self.trainer.fit_loop, self.trainer, self.owner
        base = type(loop)

        # Calling run() again from on_train_end would nest; a subclass of the loop's own class iterates instead.
        def run(loop: Any) -> None:
            # The learning-rate finder runs the loop with other callbacks: then it is none of our business.
            if owner not in trainer.callbacks or not begin():  # type: ignore[attr-defined]
                return base.run(loop)
            base.run(loop)
            while boundary():
                base.run(loop)
            return None

        loop.__class__ = type(base.__name__, (base,), {"run": run, "__module__": base.__module__})
        self._undo.append(lambda: setattr(loop, "__class__", base))
        self._watch_loaders(loop._data_source, is_training=True)
        self._watch_loaders(loop.epoch_loop.val_loop._data_source, is_training=False)
        if (progress := trainer.progress_bar_callback) is not None:
            metrics = progress.get_metrics
            progress.get_metrics = lambda *args: {**bar(), **metrics(*args)}  # type: ignore[method-assign]
            self._undo.append(lambda: delattr(progress, "get_metrics"))

    def undo(self) -> None:
        """Leaves the Trainer as Lightning made it. May be called twice."""
        while self._undo:
            self._undo.pop()()

    def _watch_loaders(self, source: Any, is_training: bool) -> None:
        """Notes the generators of data loaders when they are first asked for, before anything is drawn."""
        ask = source.dataloader  # the one place through which loaders come, given directly or by a hook

        def dataloader() -> Any:
            if is_training and self._before_loading is None:
                self._before_loading = _Randomness.capture(self._generators)
            loaders = ask()
            for generator in _own_generators(loaders):
                if not any(generator is known for known in self._generators):
                    self._generators.append(generator)
                    for point in (self._before_loading, self._after_loading):
                        if point is not None:
                            point.own.append((generator, generator.get_state()))
            return loaders

        source.dataloader = dataloader
        self._undo.append(lambda: delattr(source, "dataloader"))

    def begin(self) -> None:
        """Remembers the state that every round starts from. Call it right before the first one."""
        trainer, loop = self.trainer, self.trainer.fit_loop
        if loop._combined_loader is None:  # else configure_optimizers asked for estimated_stepping_batches
            self._before_loading = None
        loop.setup_data()  # what run() does first
        self._after_loading = _Randomness.capture(self._generators)
        # After all on_fit_start hooks: weight averaging lengthens the fit there, for its last pass.
        self._limits = (loop.max_epochs, trainer.accumulate_grad_batches)
        self._precision = copy.deepcopy(trainer.precision_plugin.state_dict())
        self._memories = [(callback, _memory(callback)) for callback in self._other_callbacks()]
        self._loggers = list(trainer.loggers)
        self._undo.append(lambda: setattr(trainer, "loggers", self._loggers))
        for checkpoint in self._checkpoints():
            _CHECKPOINT_FOLDERS.setdefault(checkpoint, checkpoint.dirpath)

    def enter_round(self, name: str) -> None:
        """Gives the round loggers and checkpoint folders of its own, inside those of the run."""
        self.trainer.loggers = [_child(logger, name) or logger for logger in self._loggers]
        for checkpoint in self._checkpoints():
            # Left so after the fit: ckpt_path="last" searches there. The name may be that of remote storage.
            checkpoint.dirpath = os.path.join(_CHECKPOINT_FOLDERS[checkpoint] or "", name)  # noqa: PTH118

    def leave_round(self, status: str = "success") -> None:
        """Closes the round's loggers; those of the run come back."""
        children, self.trainer.loggers = self.trainer.loggers, self._loggers
        for logger in children:
            if not any(logger is own for own in self._loggers):
                logger.finalize(status)

    def rewind(self, same_data_order: bool) -> None:
        """Brings all but the weights back to the start: loops, optimizers, callbacks, data, generators.

        Call it with the weights of the next round in place, since optimizers may read them.

        Args:
            same_data_order: Whether the generators return as well; else they go on drawing.
        """
        trainer, loop = self.trainer, self.trainer.fit_loop
        trainer.should_stop = False
        loop.max_epochs, trainer.accumulate_grad_batches = self._limits
        steps_logged = loop.epoch_loop._batches_that_stepped
        _reset(loop)
        # The axis of the loggers: from 0 in a child, ever rising where one run takes all rounds.
        one_axis = not all(_has_children(logger) for logger in self._loggers)
        loop.epoch_loop._batches_that_stepped = steps_logged if one_axis else 0
        trainer._logger_connector.reset_results()  # else averages go on over the rounds
        trainer._logger_connector.reset_metrics()  # else metrics of the last round pass for this one's

        self._drop_loaders()
        trainer.strategy.setup_optimizers(trainer)
        _optimizers_to_device(trainer.strategy.optimizers, trainer.strategy.root_device)
        trainer.precision_plugin.load_state_dict(copy.deepcopy(self._precision))
        for callback, memory in self._memories:
            _remember(callback, memory, trainer)

        self._drop_loaders()  # configure_optimizers may have built one again
        if same_data_order and self._before_loading is not None:
            self._before_loading.restore()
        loop.setup_data()
        if same_data_order and self._after_loading is not None:
            self._after_loading.restore()

    def _drop_loaders(self) -> None:
        """Forgets the data loaders, or the next round would find their iterators exhausted."""
        loop = self.trainer.fit_loop
        for part in (loop, loop.epoch_loop.val_loop):
            if part._combined_loader is not None:
                for loader in part._combined_loader.flattened:
                    for sampler in _samplers(loader):
                        if callable(set_epoch := getattr(sampler, "set_epoch", None)):
                            set_epoch(0)
            if part._data_fetcher is not None:
                part._data_fetcher.teardown()  # ends worker processes
            part._data_fetcher = None
            part._combined_loader = None
        loop._last_train_dl_reload_epoch = loop.epoch_loop.val_loop._last_val_dl_reload_epoch = float("-inf")

    def _other_callbacks(self) -> list[Callback]:
        return [callback for callback in self.trainer.callbacks if callback is not self.owner]  # type: ignore[attr-defined]

    def _checkpoints(self) -> list[ModelCheckpoint]:
        return [callback for callback in self._other_callbacks() if isinstance(callback, ModelCheckpoint)]

    def keep_final(self, weights: dict[str, Tensor]) -> FinalRound:
        """Notes what the Trainer knows after the last ticket."""
        trainer = self.trainer
        metrics = (trainer.callback_metrics, trainer.logged_metrics, trainer.progress_bar_metrics)
        return FinalRound(
            weights,
            [
                (checkpoint, {**_memory(checkpoint), "dirpath": checkpoint.dirpath})
                for checkpoint in self._checkpoints()
            ],
            tuple(dict(values) for values in metrics),
        )

    def restore_final(self, final: FinalRound) -> None:
        """Brings back checkpoints and metrics of the last ticket, so that ``test("best")`` tests it."""
        for callback, memory in final.checkpoints:
            vars(callback).update(memory)
        connector = self.trainer._logger_connector  # the three kinds of metrics have no setter
        connector._callback_metrics, connector._logged_metrics, connector._progress_bar_metrics = final.metrics
        connector.reset_results()

    def log_summary(self, scalars: Mapping[str, float], number: int) -> None:
        """Logs scalars of a finished round to the run's own loggers, at step = round where steps are free."""
        for logger in self._loggers:
            step = number if _has_children(logger) else self.trainer.fit_loop.epoch_loop._batches_that_stepped
            logger.log_metrics(dict(scalars), step=step)
            logger.save()

    def log_figure(self, tag: str, draw: Callable[[], Any], number: int) -> None:
        """Draws a figure for the loggers that take one; ``draw`` is not called if there is none."""
        for logger in self._loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_figure(tag, draw(), global_step=number, close=False)

    def stop_on_sigterm(self) -> None:
        """Ends the fit as Lightning does if the process was told to terminate during the round."""
        if self.trainer.received_sigterm:
            raise SIGTERMException

    def limits_reached(self) -> bool:
        """Whether the training went to its ``max_epochs`` or ``max_steps``."""
        loop: Any = self.trainer.fit_loop
        epochs, steps = loop.max_epochs, loop.max_steps
        epochs_done = loop.epoch_progress.current.processed  # current_epoch rises only after the epoch's last hook
        return (epochs not in (None, -1) and epochs_done >= epochs) or -1 != steps <= self.trainer.global_step

    def time_is_up(self) -> bool:
        """Whether ``max_time``, the budget of all rounds together, is spent."""
        timers = (callback for callback in self._other_callbacks() if isinstance(callback, Timer))
        return any((left := timer.time_remaining()) is not None and left <= 0 for timer in timers)

    def nothing_to_train(self) -> bool:
        """Whether this fit will not train a single batch."""
        return self.trainer.limit_train_batches == 0 or (self.trainer.global_step > 0 and self.limits_reached())


def gradients_are_ours(module: LightningModule) -> bool:
    """Whether no hook of the LightningModule may change gradients or weights after the masking."""
    hooks = ("on_after_backward", "on_before_optimizer_step", "configure_gradient_clipping", "optimizer_step")
    return not any(is_overridden(hook, module) for hook in hooks)


def _reset(loop: _Loop) -> None:
    """Sets the counters of a loop and of those inside it to zero, and clears their marks of a resumed fit."""
    for name in (
        "_restarting",
        "_loaded_from_state_dict",
        "_resuming_from_checkpoint",
        "_has_run",
        "_skip_backward",
    ):
        if name in vars(loop):
            setattr(loop, name, False)
    if hasattr(loop, "reset_restart_stage"):  # since 2.5.1
        loop.reset_restart_stage()
    for part in vars(loop).values():
        if isinstance(part, _BaseProgress):
            part.reset()
        elif isinstance(part, _Loop):
            _reset(part)


def _samplers(loader: Any) -> Iterator[Any]:
    batches = getattr(loader, "batch_sampler", None)
    yield from (getattr(loader, "sampler", None), batches, getattr(batches, "sampler", None))


def _own_generators(loaders: Any) -> Iterator[torch.Generator]:
    flat = loaders.flattened if isinstance(loaders, CombinedLoader) else tree_leaves(loaders)
    for loader in flat:
        for holder in (loader, *_samplers(loader)):
            if isinstance(generator := getattr(holder, "generator", None), torch.Generator):
                yield generator


def _memory(callback: Callback) -> dict[str, Any]:
    """What a callback has to forget between rounds."""
    names: tuple[str, ...]
    if isinstance(callback, ModelCheckpoint):
        names = _CHECKPOINT_MEMORY
    elif isinstance(callback, _AVERAGING):
        names = _AVERAGING_MEMORY
    else:
        return copy.deepcopy(callback.state_dict())
    return {name: copy.copy(vars(callback)[name]) for name in names if name in vars(callback)}


def _remember(callback: Callback, memory: dict[str, Any], trainer: Trainer) -> None:
    """Brings a callback back to the start of a round."""
    if isinstance(callback, Timer):
        # Time goes on: what has passed becomes the offset, and no end is left that would stop the clock.
        callback.load_state_dict(callback.state_dict())
        callback._start_time = dict.fromkeys(callback._start_time)
        callback._end_time = dict.fromkeys(callback._end_time)
    elif isinstance(callback, (ModelCheckpoint, *_AVERAGING)):
        vars(callback).update({name: copy.copy(value) for name, value in memory.items()})
        if not isinstance(callback, ModelCheckpoint):
            callback.setup(trainer, trainer.lightning_module, "fit")  # a new average, of the new weights
    elif memory:
        callback.load_state_dict(copy.deepcopy(memory))


def _has_children(logger: Logger) -> bool:
    return isinstance(logger, (TensorBoardLogger, CSVLogger))


def _child(logger: Logger, name: str) -> Logger | None:
    """A logger like the given one for a folder inside its own; ``None`` if its kind has no folders."""
    child: Any = copy.copy(logger)  # keeps a subclass, its prefix and its arguments
    if isinstance(logger, TensorBoardLogger):
        child._sub_dir = str(Path(logger.sub_dir or "") / name)
        child._default_hp_metric = False
    elif isinstance(logger, CSVLogger):
        child._save_dir = child._root_dir = logger.log_dir
        child._name, child._version = "", name
    else:
        return None
    child._experiment = None  # opened anew, in the new folder
    return child  # type: ignore[no-any-return]
