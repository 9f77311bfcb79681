"""A fit loop that iterates over rounds, and the hooks that it calls."""

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import Callback, Trainer

from lightning_lottery._lightning import loop_state
from lightning_lottery._lightning.data_order import DataOrder
from lightning_lottery._lightning.progress import show_in_progress_bar
from lightning_lottery.attributes import replace_attribute


def _no(*_: object) -> bool:
    """The answer of hooks that are not set."""
    return False


def _nothing(*_: object) -> None:
    """What hooks that are not set do."""


@dataclass(frozen=True)
class Hooks:
    """The functions that a fit of many rounds calls. By default there is one round, and nothing is done.

    Attributes:
        before_training: Before training begins. Returns whether to train at all.
        after_round: After each round. Returns whether another one follows.
        after_batch: After all hooks of a batch, before a validation.
        before_epoch: Before an epoch begins.
        before_loading: Before a checkpoint is loaded, with its path or ``None``. Returns whether the path is a run
            folder, which Lightning must not load.
        after_saving: After a checkpoint was written, with its path, and whether it has more than the weights.
        progress_texts: Returns texts for the progress bar, by name.
    """

    before_training: Callable[[], bool]
    after_round: Callable[[], bool] = _no
    after_batch: Callable[[], None] = _nothing
    before_epoch: Callable[[], None] = _nothing
    before_loading: Callable[[str | os.PathLike[str] | None], bool] = _no
    after_saving: Callable[[str, bool], None] = _nothing
    progress_texts: Callable[[], dict[str, str]] = dict


def install(trainer: Trainer, owner: Callback, hooks: Hooks, data: DataOrder) -> list[Callable[[], None]]:
    """Makes the fit loop of a Trainer train round after round.

    Args:
        trainer: The Trainer, in ``setup`` of a fit.
        owner: Our callback. Rounds are trained only while it is among the Trainer's callbacks.
        hooks: The functions to call.
        data: Loads the data.

    Returns:
        Functions that restore the Trainer, to be called in reverse order.
    """

    def is_ours() -> bool:
        # The learning-rate finder runs the loop without our callback, which must not act then.
        return owner in trainer.callbacks  # type: ignore[attr-defined]

    loop: Any = trainer.fit_loop
    base = type(loop)
    loop.__class__ = _loop_class(base, is_ours, hooks, data)
    undo: list[Callable[[], None]] = [lambda: setattr(loop, "__class__", base), *data.watch()]
    undo.append(_watch_batches(loop.epoch_loop, is_ours, hooks))
    undo += [_watch_loading(trainer, hooks), _watch_saving(trainer, hooks)]
    # Both warnings would be wrong: an epoch is resumed exactly, and checkpoint callbacks keep their state.
    undo.append(_mute("You're resuming from a checkpoint that ended before the epoch ended"))
    undo.append(_mute("The dirpath has changed from"))
    undo.append(show_in_progress_bar(trainer, hooks.progress_texts))
    return undo


def _loop_class(base: Any, is_ours: Callable[[], bool], hooks: Hooks, data: DataOrder) -> Any:
    # Calling run() again from on_train_end would nest. A subclass of the loop's own class iterates instead.

    def run(loop: Any) -> None:
        if not is_ours():
            base.run(loop)
        elif hooks.before_training():
            train(loop)
            while hooks.after_round():
                train(loop)

    def train(loop: Any) -> None:
        epochs = loop.epoch_progress.current
        if epochs.ready > epochs.processed and loop.skip:  # resumed after the last batch
            loop_state.end_epoch(loop)
        elif epochs.processed and loop.skip:  # resumed after the last epoch
            loop.on_run_start()
            loop.on_run_end()
        else:
            base.run(loop)

    def on_advance_start(loop: Any) -> None:
        if is_ours():
            data.begin_epoch()
            hooks.before_epoch()
        base.on_advance_start(loop)

    def on_advance_end(loop: Any) -> None:
        if is_ours():
            loop._restarting = False  # otherwise schedulers that use metrics miss the end of a resumed epoch
        base.on_advance_end(loop)

    own = {"run": run, "on_advance_start": on_advance_start, "on_advance_end": on_advance_end}
    return type(base.__name__, (base,), {**own, "__module__": base.__module__})


def _watch_batches(epoch_loop: Any, is_ours: Callable[[], bool], hooks: Hooks) -> Callable[[], None]:
    # on_train_batch_end of callbacks runs before that of the LightningModule, which may still change weights.
    end = epoch_loop.on_advance_end

    def on_advance_end(fetcher: Any) -> None:
        if is_ours():
            hooks.after_batch()
        end(fetcher)

    return replace_attribute(epoch_loop, "on_advance_end", on_advance_end)


def _mute(message: str) -> Callable[[], None]:
    """Suppresses a warning of Lightning that would be wrong here."""
    warnings.filterwarnings("ignore", message=message)
    entry = warnings.filters[0]

    def undo() -> None:
        if entry in warnings.filters:
            warnings.filters.remove(entry)  # type: ignore[attr-defined]

    return undo


def _watch_loading(trainer: Any, hooks: Hooks) -> Callable[[], None]:
    # ckpt_path may be a run folder. Lightning would open it here, and no hook sees the path earlier.
    start = trainer._checkpoint_connector.resume_start

    def resume_start(checkpoint_path: Any = None, *args: Any, **kwargs: Any) -> None:
        start(None if hooks.before_loading(checkpoint_path) else checkpoint_path, *args, **kwargs)

    return replace_attribute(trainer._checkpoint_connector, "resume_start", resume_start)


def _watch_saving(trainer: Any, hooks: Hooks) -> Callable[[], None]:
    save = trainer.save_checkpoint

    def save_checkpoint(filepath: Any, weights_only: bool | None = None, *args: Any, **kwargs: Any) -> None:
        save(filepath, weights_only, *args, **kwargs)
        hooks.after_saving(os.fspath(filepath), not weights_only)

    return replace_attribute(trainer, "save_checkpoint", save_checkpoint)
