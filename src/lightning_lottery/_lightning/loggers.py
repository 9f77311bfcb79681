"""A logger run for each round, inside that of the fit."""

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger


class RoundLoggers:
    """Sends each round's curves to child loggers, and the summary of all rounds to the loggers of the fit.

    A restarted ``global_step`` would write over the same curve again and again. Loggers without folders (W&B,
    MLflow) take all rounds in one run, over steps that never fall.

    Args:
        trainer: The Trainer, right before its first round.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._own = list(trainer.loggers)

    @property
    def have_children(self) -> bool:
        """Whether every logger starts at step 0 in each round."""
        return all(_has_children(logger) for logger in self._own)

    def enter(self, name: str) -> None:
        """Opens the loggers of a round."""
        self._trainer.loggers = [_child(logger, name) if _has_children(logger) else logger for logger in self._own]

    def leave(self, status: str) -> None:
        """Closes the loggers of the round; those of the fit come back. May be called twice."""
        children, self._trainer.loggers = self._trainer.loggers, self._own
        for logger in children:
            if not any(logger is own for own in self._own):
                logger.finalize(status)

    def log(self, scalars: Mapping[str, float], number: int) -> None:
        """Logs scalars of a finished round, at step = round where steps are free."""
        for logger in self._own:
            # The axis of all loggers; nothing public gives it.
            ever_rising = self._trainer.fit_loop.epoch_loop._batches_that_stepped
            logger.log_metrics(dict(scalars), step=number if _has_children(logger) else ever_rising)
            logger.save()

    def draw(self, tag: str, figure: Callable[[], Any], number: int) -> None:
        """Logs a figure where one can be; ``figure`` is not called otherwise."""
        for logger in self._own:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_figure(tag, figure(), global_step=number, close=False)
                logger.experiment.flush()


def _has_children(logger: Logger) -> bool:
    return isinstance(logger, (TensorBoardLogger, CSVLogger))


def _child(logger: Logger, name: str) -> Logger:
    """A logger like the given one, for a folder inside its own."""
    # A copy keeps a subclass, its prefix and its arguments, which its constructor would not give back.
    child: Any = copy.copy(logger)
    # Their constructors' arguments have no setters.
    if isinstance(logger, TensorBoardLogger):
        child._sub_dir = str(Path(logger.sub_dir or "") / name)
        child._default_hp_metric = False
    elif isinstance(logger, CSVLogger):
        child._save_dir = child._root_dir = logger.log_dir
        child._name, child._version = "", name
    child._experiment = None  # opened anew, in the new folder
    return child  # type: ignore[no-any-return]
