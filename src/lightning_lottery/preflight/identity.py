"""What makes two runs the same, so that one can go on with the other."""

import json
import os
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Timer

from lightning_lottery._lightning import validation_interval
from lightning_lottery.errors import ConfigurationError
from lightning_lottery.plain import plain
from lightning_lottery.preflight.description import alike, described
from lightning_lottery.preflight.settings import Settings
from lightning_lottery.storage import RunFolder
from lightning_lottery.tickets import Ticket

# Attributes of a Trainer that, besides its limits, decide what a run comes to.
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


def describe(
    limits: dict[str, Any],
    settings: Settings,
    module: LightningModule,
    ticket: Ticket,
    copies: Mapping[str, str | None],
) -> dict[str, Any]:
    """What decides the course of a run, as plain values: it must be the same to go on with it.

    Args:
        limits: What :func:`describe_trainer` gave in ``setup``.
        settings: The arguments.
        module: The network.
        ticket: The dense ticket.
        copies: The names of originals by those of the copies that follow them.
    """
    return {
        "arguments": settings.described(),
        "trainer": limits,
        "prunable": {name: list(mask.shape) for name, mask in ticket.masks.items()},
        "copies": dict(copies),
        "structure": ticket.provenance["structure"],
        "hyperparameters": {name: described(value) for name, value in module.hparams.items()},
        "seed_everything": os.environ.get("PL_GLOBAL_SEED"),
    }


def describe_trainer(trainer: Trainer) -> dict[str, Any]:
    """What of the Trainer decides the course of a run."""
    return {
        **{name: described(getattr(trainer, name)) for name in _DECISIVE},
        "val_check_interval": described(validation_interval(trainer)),
        **{name: plain(getattr(trainer, name)) for name in _NUMBERS},
        "max_epochs": plain(_most_epochs(trainer)),
        "precision": str(trainer.precision),
        "processes": trainer.world_size,
    }


def _most_epochs(trainer: Trainer) -> int:
    """The number that Lightning takes when a fit begins, which it notes in place of ``None``."""
    if trainer.max_epochs is not None:
        return trainer.max_epochs
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    has_other_limit = trainer.max_steps != -1 or any(isinstance(callback, Timer) for callback in callbacks)
    return -1 if has_other_limit else 1000


def check_same(folder: RunFolder, description: dict[str, Any], ignore: Sequence[str] = ()) -> None:
    """Refuses to go on with a run that was begun otherwise.

    Args:
        folder: The run folder.
        description: What the run would be if it were begun now.
        ignore: Patterns of names of hyperparameters that may differ.

    Raises:
        ConfigurationError: Arguments, Trainer or network differ, with what differs.
    """
    then, now = folder.description(), json.loads(json.dumps(description))
    differences = []
    for part in ("arguments", "trainer", "prunable", "hyperparameters"):
        old, new = then.get(part, {}), now[part]
        changed = [name for name in {**old, **new} if not alike(old.get(name), new.get(name))]
        if part == "hyperparameters":
            changed = [name for name in changed if not any(fnmatchcase(name, pattern) for pattern in ignore)]
            free = changed
        differences += [f"{name} was {old.get(name)!r} and is {new.get(name)!r}" for name in changed]
    if not differences and then.get("structure") != now["structure"]:
        differences.append("the network has other parameters or buffers")
    if differences:
        raise ConfigurationError(
            f"The run in {str(folder.path)!r} cannot go on, since {'; '.join(differences)}. Write what it was "
            "begun with, or begin another run without ckpt_path and in another folder."
            + (f" If {free} may differ, call lottery.resume(trainer, ignore={free}) first." if free else "")
        )
