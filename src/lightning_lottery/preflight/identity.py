"""What makes two runs the same, so that one can resume the other."""

import json
import os
import platform
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Timer

from lightning_lottery._lightning import validation_interval
from lightning_lottery.errors import ConfigurationError
from lightning_lottery.plain import plain
from lightning_lottery.pruning import Selection
from lightning_lottery.rules import Difference, Plan, Settings, described, differences
from lightning_lottery.storage import RunDescription
from lightning_lottery.tickets import structure_of

# Attributes of a Trainer that influence the result of a run, besides its limits.
_DECISIVE = (
    "limit_train_batches",
    "limit_val_batches",
    "overfit_batches",
    "check_val_every_n_epoch",
    "reload_dataloaders_every_n_epochs",
    "gradient_clip_val",
    "gradient_clip_algorithm",
)
# Its limits.
_NUMBERS = ("max_steps", "accumulate_grad_batches")


def describe_run(
    trainer: dict[str, Any], settings: Settings, module: LightningModule, selection: Selection
) -> RunDescription:
    """Describes everything that influences the result of a run. It must be equal to resume the run.

    Args:
        trainer: The result of :func:`describe_trainer` in ``setup``.
        settings: The arguments.
        module: The network.
        selection: The parameters that are pruned.
    """
    return RunDescription(
        arguments=settings.described(),
        trainer=trainer,
        prunable={name: list(parameter.shape) for name, parameter in selection.parameters.items()},
        copies=dict(selection.copies),
        structure=structure_of(module),
        hyperparameters={name: described(value) for name, value in module.hparams.items()},
        seed_everything=seed_given(),
        plan=Plan.of(settings).names,
        environment=_environment(module),
        command=command_line(),
    )


def _environment(module: LightningModule) -> dict[str, str]:
    data: object = module.trainer.datamodule  # type: ignore[attr-defined]
    return {
        "module": type(module).__name__,
        **({} if data is None else {"data": type(data).__name__}),
        "device": module.device.type,
        "python": platform.python_version(),
    }


def command_line() -> str:
    """The command that has started this process, as it would be typed; empty in notebooks and other hosts."""
    words = _after_options(sys.orig_argv[1:])
    if not words or words[0] in ("-c", "-") or any(re.search("kernel_launcher|debugpy", w) for w in words[:2]):
        return ""
    if Path(words[0]).name == "lightning-lottery":  # the console script
        return shlex.join(["lightning-lottery", *words[1:]])
    return shlex.join(["python", *words])


def _after_options(words: Sequence[str]) -> Sequence[str]:
    """The arguments of Python after its own options."""
    place = 0
    while place < len(words) and words[place].startswith("-") and words[place] not in ("-c", "-m", "-"):
        place += 2 if words[place] in ("-X", "-W") else 1
    return words[place:]


def seed_given() -> str | None:
    """The seed that ``seed_everything`` was called with, if any."""
    return os.environ.get("PL_GLOBAL_SEED")


def describe_trainer(trainer: Trainer) -> dict[str, Any]:
    """Describes the properties of a Trainer that influence the result of a run."""
    return {
        **{name: described(getattr(trainer, name)) for name in _DECISIVE},
        "val_check_interval": described(validation_interval(trainer)),
        **{name: plain(getattr(trainer, name)) for name in _NUMBERS},
        "max_epochs": plain(_most_epochs(trainer)),
        "precision": str(trainer.precision),
        "processes": trainer.world_size,
    }


def _most_epochs(trainer: Trainer) -> int:
    """The number of epochs that Lightning substitutes for ``None`` when a fit begins."""
    if trainer.max_epochs is not None:
        return trainer.max_epochs
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    has_other_limit = trainer.max_steps != -1 or any(isinstance(callback, Timer) for callback in callbacks)
    return -1 if has_other_limit else 1000


def check_same(
    folder: Path, then: RunDescription, description: RunDescription, ignore: Sequence[str] = ()
) -> None:
    """Checks that a run was started with the same arguments, Trainer and network.

    Args:
        folder: The run folder.
        then: The description of the run in this folder.
        description: The description of the current run.
        ignore: Patterns of names of hyperparameters that may differ.

    Raises:
        ConfigurationError: They differ; the message lists the differences.
    """
    found = differences(then, as_read(description), ignore)
    if found:
        free = [entry.name for entry in found if entry.part == "hyperparameters"]
        sentences = "; ".join(map(_sentence, found))
        raise ConfigurationError(
            f"The run in {str(folder)!r} cannot be resumed: {sentences}. Use the values that it was started "
            "with, or start a new run in another folder, without ckpt_path."
            + (f" If {free} may differ, call lottery.resume(trainer, ignore={free}) first." if free else "")
        )


def _sentence(difference: Difference) -> str:
    if difference.part == "structure":
        return "the network has other parameters or buffers"
    then, now = difference.values
    return f"{difference.name} was {then!r} and is now {now!r}"


def as_read(description: RunDescription) -> RunDescription:
    """A description as it is read from its file, with lists instead of tuples."""
    return RunDescription.from_json(json.loads(json.dumps(description.to_json())))
