"""How long a round is, as far as it is known before it trains."""

import math
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler


def steps_of_a_round(trainer: Trainer) -> float:
    """The optimizer steps that a whole round takes; infinite if nothing tells."""
    loop: Any = trainer.fit_loop
    return min(
        _most_epochs(trainer) * _steps_of_an_epoch(trainer), math.inf if loop.max_steps == -1 else loop.max_steps
    )


def validation_interval(trainer: Trainer) -> Any:
    """How often the Trainer validates within an epoch, as its argument says it, or the seconds in between."""
    seconds = getattr(trainer, "_val_check_time_interval", None)  # since 2.6; there is no val_check_interval then
    return trainer.val_check_interval if seconds is None else f"{seconds} s"


def epochs_of_a_round(trainer: Trainer) -> float:
    """The epochs that a whole round takes, the last one maybe in part; infinite if nothing tells."""
    steps, most = _steps_of_an_epoch(trainer), trainer.fit_loop.max_steps
    epochs = _most_epochs(trainer)
    return epochs if most == -1 or math.isinf(steps) else min(epochs, most / steps)


def _most_epochs(trainer: Trainer) -> float:
    epochs = trainer.fit_loop.max_epochs
    return math.inf if epochs in (None, -1) else float(epochs)


def _steps_of_an_epoch(trainer: Any) -> float:
    varies = any(isinstance(callback, GradientAccumulationScheduler) for callback in trainer.callbacks)
    if varies or not trainer.lightning_module.automatic_optimization:
        return math.inf
    batches: float = trainer.fit_loop.max_batches
    return batches if math.isinf(batches) else math.ceil(batches / trainer.accumulate_grad_batches)
