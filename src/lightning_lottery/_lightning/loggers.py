"""Loggers: a child logger per round, inside the logger of the fit."""

import copy
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import (
    CometLogger,
    CSVLogger,
    Logger,
    MLFlowLogger,
    TensorBoardLogger,
    WandbLogger,
)

from lightning_lottery.attributes import replace_attribute
from lightning_lottery.tickets import RoundId

_ROUND = "lottery/round"


class RoundLoggers:
    """Sends each round's curves to child loggers, and the summary of all rounds to the loggers of the fit.

    With a single logger, the restarted ``global_step`` would draw over the same curve in every round. Loggers
    without folders (W&B, MLflow) receive all rounds in one run instead, with steps that never fall and the round
    as ``lottery/round``. There, the keys of controls start with the name of the control, so that summaries belong
    to the tickets.

    Args:
        trainer: The Trainer, right before its first round.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._own = list(trainer.loggers)
        self._undo: list[Callable[[], None]] = []
        self._tags = True

    @property
    def have_children(self) -> bool:
        """Whether every logger has child loggers, which start each round at step 0."""
        return all(_has_children(logger) for logger in self._own)

    def enter(self, entry: RoundId) -> None:
        """Opens the loggers of a round."""
        self._trainer.loggers = [
            _child(logger, entry.name) if _has_children(logger) else logger for logger in self._own
        ]
        for logger in self._own:
            if not _has_children(logger):
                self._undo.append(self._tag(logger, entry))

    def leave(self, status: str) -> None:
        """Closes the loggers of the round and restores those of the fit. May be called twice."""
        children, self._trainer.loggers = self._trainer.loggers, self._own
        while self._undo:
            self._undo.pop()()
        for logger in children:
            if not any(logger is own for own in self._own):
                logger.finalize(status)

    def _tag(self, logger: Any, entry: RoundId) -> Callable[[], None]:
        """Adds the number of the round to everything that is logged, and the name of a control to its keys."""
        log, prefix = logger.log_metrics, "" if entry.is_ticket else f"{entry.branch}/"

        def log_metrics(metrics: Mapping[str, Any], step: int | None = None, *args: Any, **kwargs: Any) -> None:
            if self._tags:
                metrics = {
                    **{f"{prefix}{key}": value for key, value in metrics.items()},
                    _ROUND: float(entry.number),
                }
            log(metrics, step, *args, **kwargs)

        # On the object itself, since users and callbacks hold references and check its class.
        return replace_attribute(logger, "log_metrics", log_metrics)

    @contextmanager
    def _untagged(self) -> Iterator[None]:
        self._tags = False
        try:
            yield
        finally:
            self._tags = True

    def log(self, scalars: Mapping[str, float], number: int) -> None:
        """Logs scalars of a finished round, at step = round if the logger allows it."""
        for logger in self._own:
            # The step of all loggers. Lightning has no public attribute for it.
            ever_rising = self._trainer.fit_loop.epoch_loop._batches_that_stepped
            with self._untagged():
                if _has_children(logger) or isinstance(logger, (MLFlowLogger, CometLogger)):
                    logger.log_metrics(dict(scalars), step=number)  # every key has its own steps
                else:
                    _draw_over_rounds(logger, scalars)
                    logger.log_metrics({**scalars, _ROUND: float(number)}, step=ever_rising)
                logger.save()

    def draw(self, tag: str, figure: Callable[[], Any], number: int) -> None:
        """Logs a figure to loggers that support figures; ``figure`` is called only if there is one."""
        for logger in self._own:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_figure(tag, figure(), global_step=number, close=False)
                logger.experiment.flush()
            elif isinstance(logger, WandbLogger):
                with self._untagged():
                    steps = self._trainer.fit_loop.epoch_loop._batches_that_stepped
                    logger.log_image(tag, [figure()], step=steps)
            elif isinstance(logger, CometLogger):
                logger.experiment.log_figure(tag, figure(), step=number, overwrite=True)
            elif isinstance(logger, MLFlowLogger) and self._trainer.is_global_zero:
                logger.experiment.log_figure(logger.run_id, figure(), f"{tag}.png")

    def lay_out(self, metrics: Collection[str], summaries: Collection[str]) -> None:
        """Tells TensorBoard what to draw in its tab *Custom Scalars*: each metric of all rounds in one chart.

        Args:
            metrics: The names of the metrics that the LightningModule logs.
            summaries: The names of the values that are logged after each round.
        """
        # Lightning logs a metric of both steps and epochs only under these two names.
        whole = [name for name in metrics if f"{name}_step" not in metrics]
        rounds = {name: ["Multiline", [f"^{re.escape(name)}$"]] for name in whole}
        over_rounds = {name: ["Multiline", [f"^lottery[^/]*/{re.escape(name)}$"]] for name in summaries}
        for logger in self._own:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_custom_scalars({"rounds": rounds, "over the rounds": over_rounds})

    def log_verdict(self, settings: Mapping[str, Any], numbers: Mapping[str, float]) -> None:
        """Logs settings and results of the run, for TensorBoard's tab *HParams*.

        Args:
            settings: The settings by name.
            numbers: The results by name.
        """
        for logger in self._own:
            if isinstance(logger, TensorBoardLogger):
                # TensorBoard takes only the first hyperparameters of a folder, which Lightning has written.
                child: Any = _child(logger, "verdict")
                child.hparams = {}
                child.log_hyperparams(dict(settings), dict(numbers))
                child.finalize("success")


def _has_children(logger: Logger) -> bool:
    return isinstance(logger, (TensorBoardLogger, CSVLogger))


def _draw_over_rounds(logger: Logger, scalars: Mapping[str, float]) -> None:
    """Tells W&B to draw summaries over rounds."""
    # Disabled experiments, and those of other processes, accept any call and do nothing.
    if isinstance(logger, WandbLogger) and hasattr(logger.experiment, "define_metric"):
        logger.experiment.define_metric(_ROUND)
        for group in sorted({key.split("/")[0] for key in scalars}):
            logger.experiment.define_metric(f"{group}/*", step_metric=_ROUND)


def _child(logger: Logger, name: str) -> Logger:
    """Makes a copy of a logger for a folder inside its own."""
    # A copy keeps the subclass and its arguments, which cannot be read back.
    child: Any = copy.copy(logger)
    # The loggers have no setters for these constructor arguments.
    if isinstance(logger, TensorBoardLogger):
        child._sub_dir = str(Path(logger.sub_dir or "") / name)
        child._default_hp_metric = False
    elif isinstance(logger, CSVLogger):
        child._save_dir = child._root_dir = logger.log_dir
        child._name, child._version = "", name
    child._experiment = None  # opened again in the new folder
    return child  # type: ignore[no-any-return]
