"""All use of Lightning's internals: many trainings inside one ``Trainer.fit``.

No other part of the package uses a private name of Lightning. A comment at each use says why. Each name has
existed since the oldest supported version, 2.5.0, unless its comment names a later one.
"""

from lightning_lottery._lightning.commands import Command, CommandFinished, CommandLine
from lightning_lottery._lightning.fit import RoundsFit
from lightning_lottery._lightning.flops import FlopsOfBatch
from lightning_lottery._lightning.loop import Hooks
from lightning_lottery._lightning.optimizers import before_optimizers
from lightning_lottery._lightning.other_callbacks import gradients_stay_masked, other_callbacks
from lightning_lottery._lightning.progress import show_in_progress_bar, validation_interval
from lightning_lottery._lightning.rounds_loop import RoundsLoop

__all__ = [
    "Command",
    "CommandFinished",
    "CommandLine",
    "FlopsOfBatch",
    "Hooks",
    "RoundsFit",
    "RoundsLoop",
    "before_optimizers",
    "gradients_stay_masked",
    "other_callbacks",
    "show_in_progress_bar",
    "validation_interval",
]
