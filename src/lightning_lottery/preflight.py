"""What is refused before training begins."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import (
    BaseFinetuning,
    BatchSizeFinder,
    EarlyStopping,
    LearningRateFinder,
    StochasticWeightAveraging,
)
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities.seed import isolate_rng

from lightning_lottery import controls
from lightning_lottery.criteria import Magnitude
from lightning_lottery.errors import ConfigurationError
from lightning_lottery.folder import RunFolder
from lightning_lottery.patterns import Layer, Unstructured
from lightning_lottery.prunable import Selection, examine, layers_of
from lightning_lottery.pruning import Pruner
from lightning_lottery.resume import newest_run
from lightning_lottery.round import dense_ticket
from lightning_lottery.settings import Settings, described
from lightning_lottery.sharding import count, is_sharded, like, local
from lightning_lottery.ticket import Ticket

_FINDERS = (LearningRateFinder, BatchSizeFinder)
_CHANGING = (StochasticWeightAveraging, BaseFinetuning)
# Attributes of a Trainer that, besides its limits, decide what a run comes to.
_DECISIVE = (
    "limit_train_batches",
    "limit_val_batches",
    "overfit_batches",
    "val_check_interval",
    "check_val_every_n_epoch",
    "reload_dataloaders_every_n_epochs",
    "gradient_clip_val",
    "gradient_clip_algorithm",
)


def check_trainer(trainer: Trainer, owner: Callback, settings: Settings) -> None:
    """Refuses a Trainer that cannot train rounds.

    Raises:
        ConfigurationError: With what came, what is allowed and what to write.
    """
    if not isinstance(trainer, Trainer):
        raise ConfigurationError(
            f"The Trainer is that of {type(trainer).__module__.split('.')[0]}. Import Trainer, LightningModule "
            "and all the rest from lightning.pytorch, or callbacks and Trainer do not know each other."
        )
    others = [callback for callback in trainer.callbacks if isinstance(callback, type(owner))]  # type: ignore[attr-defined]
    if len(others) > 1:
        raise ConfigurationError(
            f"The Trainer has {len(others)} callbacks of type {type(owner).__name__}; one fit follows one of "
            "them. Keep one, and start another Trainer for the other experiment."
        )
    if type(trainer.strategy) not in (SingleDeviceStrategy, DDPStrategy, ModelParallelStrategy):
        raise ConfigurationError(
            f"The strategy {type(trainer.strategy).__name__} is not supported. For several devices write "
            "Trainer(strategy='ddp'), for weights that are too large for one of them "
            "Trainer(strategy=ModelParallelStrategy()) with fully_shard in configure_model (FSDP2); or else "
            "Trainer(devices=1, strategy='auto')."
        )
    changing = [callback for callback in trainer.callbacks if isinstance(callback, _CHANGING)]  # type: ignore[attr-defined]
    if changing and settings.rewind.schedule.amount:
        raise ConfigurationError(
            f"rewind={settings.rewind!r} came with {type(changing[0]).__name__}, which exchanges schedulers or "
            "adds groups of parameters while it trains, so that the schedule cannot return to a later point. "
            "Rewind to initialisation, or leave one of them out."
        )
    window = max((rule.window for rule in settings.stop), default=0)
    if trainer.max_epochs not in (None, -1) and window > int(trainer.max_epochs or 0):
        raise ConfigurationError(
            f"stop={list(settings.stop)} compares the masks of {window} epochs, and a round has max_epochs="
            f"{trainer.max_epochs}. Write a smaller window, or let the rounds be longer."
        )
    endless = trainer.max_epochs == -1 and trainer.max_steps == -1
    if endless and not any(isinstance(callback, EarlyStopping) for callback in trainer.callbacks):  # type: ignore[attr-defined]
        raise ConfigurationError(
            "max_epochs=-1 came without another limit, so the first round would never end (max_time is the "
            "budget of all rounds together). Write the length of one round, for example Trainer(max_epochs=10)."
        )


def check_finders(trainer: Trainer) -> None:
    """Refuses to go on with a run on a Trainer that tries itself out first; call it before ``on_fit_start``.

    Raises:
        ConfigurationError: With what came and what to write.
    """
    finders = [callback for callback in trainer.callbacks if isinstance(callback, _FINDERS)]  # type: ignore[attr-defined]
    if finders:
        raise ConfigurationError(
            f"{type(finders[0]).__name__} tries out the Trainer when a fit begins, and then Lightning does not go "
            "on where the checkpoint was taken. To go on, leave it out and write down what it had found."
        )


def check_resume(trainer: Trainer, is_resumed: bool) -> None:
    """Refuses to go on with a run whose strategy cannot.

    Raises:
        ConfigurationError: With what came and what to write.
    """
    if isinstance(trainer.strategy, ModelParallelStrategy) and (is_resumed or trainer.ckpt_path is not None):
        raise ConfigurationError(
            "Going on with a run of ModelParallelStrategy is not supported. Fit without ckpt_path, from round 0."
        )


def check_start(trainer: Trainer, is_resumed: bool, has_nothing_to_train: bool) -> None:
    """Refuses a fit that begins neither at step 0 nor from a checkpoint of a run; call it in ``on_fit_start``.

    Raises:
        ConfigurationError: With what came and what to write.
    """
    if is_resumed:
        return
    # Lightning's tuner goes back to a checkpoint of its own, in on_fit_start before ours.
    tuner = (".lr_find_", ".scale_batch_size_")
    if trainer.ckpt_path is not None and not Path(trainer.ckpt_path).name.startswith(tuner):
        raise ConfigurationError(
            f"ckpt_path={str(trainer.ckpt_path)!r} holds no round to go on with: it was written without "
            "LotteryTicketCallback, or when all rounds were over. To go on with a run, take "
            "lottery.resume(trainer); to start from trained weights, load them into the model before fit."
        )
    if trainer.global_step > 0 and not has_nothing_to_train:
        raise ConfigurationError(
            f"This Trainer has trained {trainer.global_step} steps already, and a round begins at step 0. Make a "
            "new Trainer for a new run."
        )


def check_module(module: LightningModule, settings: Settings, is_resumed: bool) -> Selection:
    """Refuses a LightningModule that does not go with the arguments.

    Args:
        module: The LightningModule.
        settings: The arguments.
        is_resumed: Whether a run goes on, whose weights are not those of a beginning.

    Returns:
        What of it is pruned.

    Raises:
        ConfigurationError: With what came, what is allowed and what to write.
    """
    selection = examine(module, settings.include, settings.exclude, is_initial=not is_resumed)
    layers = layers_of(module, selection.parameters)
    _check_sharded(module, settings, layers)
    pruner = settings.method.plan(layers, settings.sizes)
    if settings.controls:
        _try_controls(module, settings, selection, pruner)
    return selection


def _try_controls(module: LightningModule, settings: Settings, selection: Selection, pruner: Pruner) -> None:
    """Tries every control on a ticket of random masks, to fail now and not after the last ticket."""
    dense = dense_ticket(module, selection.parameters)
    with isolate_rng():  # else what a control draws would change the training
        sparse = replace(dense, masks=pruner.random_masks(dense.masks), round=1)
        for control in settings.controls:
            control.check(dense, module)
            controls.make(control, sparse, dense, module, seed=0)


def _check_sharded(module: LightningModule, settings: Settings, layers: Sequence[Layer]) -> None:
    """Refuses what has not been shown to work with weights of which every process holds a shard."""
    if not any(map(is_sharded, module.parameters())):
        return
    late = settings.rewind.schedule.amount > 0 or settings.rewind.weights is None
    if late or settings.controls:
        raise ConfigurationError(
            f"With sharded weights {'rewind=' + repr(settings.rewind) if late else 'controls'} is not supported. "
            "Rewind to initialisation, and train controls on one device or with strategy='ddp'."
        )
    method = settings.method
    if not isinstance(method.criterion, Magnitude) or type(method.pattern) is not Unstructured or settings.stop:
        raise ConfigurationError(
            f"With sharded weights {method.criterion}, {method.pattern} and stop={list(settings.stop)} are not "
            "supported together; single weights by magnitude are, without stop rules."
        )
    if normed := [layer.name for layer in layers if layer.norm_dims is not None]:
        raise ConfigurationError(
            f"The sharded weights {normed} are divided by their own norms, which is not supported. Leave them out "
            f"by exclude={normed}."
        )
    for name, parameter in module.named_parameters():
        everywhere = like(torch.ones_like(local(parameter), dtype=torch.bool), parameter)
        if count([everywhere]) != [parameter.numel()]:
            raise ConfigurationError(
                f"The weights {name!r} are spread over the processes in a way that is not supported. Shard them "
                "by fully_shard over one mesh, as with ModelParallelStrategy(tensor_parallel_size=1)."
            )


def describe(
    limits: dict[str, Any], settings: Settings, module: LightningModule, ticket: Ticket
) -> dict[str, Any]:
    """What decides the course of a run, as plain values: it must be the same to go on with it.

    Args:
        limits: What :func:`describe_trainer` gave in ``setup``.
        settings: The arguments.
        module: The network.
        ticket: The dense ticket.
    """
    return {
        "arguments": settings.described(),
        "trainer": limits,
        "prunable": {name: list(mask.shape) for name, mask in ticket.masks.items()},
        "structure": ticket.provenance["structure"],
        "hyperparameters": {name: described(value) for name, value in module.hparams.items()},
        "seed_everything": os.environ.get("PL_GLOBAL_SEED"),
    }


def describe_trainer(trainer: Trainer) -> dict[str, Any]:
    """What of the Trainer decides the course of a run."""
    return {
        **{name: described(getattr(trainer, name)) for name in _DECISIVE},
        "max_epochs": trainer.max_epochs,
        "max_steps": trainer.max_steps,
        "accumulate_grad_batches": trainer.accumulate_grad_batches,
        "precision": str(trainer.precision),
        "processes": trainer.world_size,
    }


def choose_folder(trainer: Trainer, settings: Settings) -> RunFolder:
    """The run folder that the arguments ask for.

    Raises:
        ConfigurationError: It holds another run.
    """
    where = _base_folder(trainer)  # on all processes: Lightning's log_dir makes them agree
    if settings.dirpath is None and "://" in where and not trainer.fast_dev_run:  # type: ignore[attr-defined]
        raise ConfigurationError(
            f"The run folder would be in {where!r}, which is no local folder. Write one: "
            "LotteryTicketCallback(..., dirpath='runs/mine')."
        )
    default = Path(where) / "lottery"
    # One process chooses: the others would find what it has written already.
    chosen: RunFolder | ConfigurationError | None = None
    if trainer.is_global_zero:
        try:
            chosen = _choose_folder(trainer, settings, default)
        except ConfigurationError as error:
            chosen = error
    path = trainer.strategy.broadcast(chosen.path if isinstance(chosen, RunFolder) else chosen)
    if isinstance(path, ConfigurationError):
        raise path
    return chosen if isinstance(chosen, RunFolder) else RunFolder(Path(str(path)), is_writer=False)


def _choose_folder(trainer: Trainer, settings: Settings, default: Path) -> RunFolder:
    if trainer.fast_dev_run:  # type: ignore[attr-defined]  # a trial leaves no files, as with Lightning's own
        temporary = TemporaryDirectory(prefix="lottery-")
        return RunFolder(Path(temporary.name), temporary)
    if settings.dirpath is None:
        return RunFolder.next_free(default)
    folder = RunFolder(settings.dirpath)
    if folder.holds_records() and not settings.overwrite:
        raise ConfigurationError(
            f"dirpath={str(settings.dirpath)!r} holds another run. Go on with it by "
            "trainer.fit(..., ckpt_path=lottery.resume(trainer)), write another folder, or overwrite=True to "
            "replace that run."
        )
    return folder


def _base_folder(trainer: Trainer) -> str:
    """Where run folders are if ``dirpath`` does not say: in the logger's folder, or else in the Trainer's.

    A logger that only has an id gets the folder that ``ModelCheckpoint`` makes of it.
    """
    logger = trainer.loggers[0] if trainer.loggers else None
    if logger is None or isinstance(logger, (TensorBoardLogger, CSVLogger)):
        return trainer.log_dir or trainer.default_root_dir
    folder, version = Path(logger.save_dir or trainer.default_root_dir), logger.version
    if version is not None:
        folder = folder / str(logger.name) / (version if isinstance(version, str) else f"version_{version}")
    return str(trainer.strategy.broadcast(str(folder)))  # only process 0 knows the id of every logger


def find_run(trainer: Trainer, settings: Settings) -> RunFolder | None:
    """The run to go on with: that in ``dirpath``, or else the newest that is like this one, if there is any."""
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return None  # a trial is a run of its own
    wanted = {
        "arguments": settings.described(),
        "trainer": describe_trainer(trainer),
        "seed_everything": os.environ.get("PL_GLOBAL_SEED"),
    }
    return newest_run(_known_folders(trainer, settings), settings.dirpath, wanted)


def _known_folders(trainer: Trainer, settings: Settings) -> list[Path]:
    """Where runs with these arguments may have been begun."""
    if settings.dirpath is not None:
        return [settings.dirpath]
    found = set(Path(_base_folder(trainer)).glob("lottery*"))  # also of a version that the user has named
    logger = trainer.loggers[0] if trainer.loggers else None
    if isinstance(logger, (TensorBoardLogger, CSVLogger)):  # every fit has a version, and so a folder, of its own
        inside = Path(getattr(logger, "sub_dir", None) or "")
        found |= set(Path(logger.root_dir).glob(str(Path("*") / inside / "lottery*")))
    elif logger is not None:  # the run may have had another id, or be of a version that knew no ids
        root = Path(logger.save_dir or trainer.default_root_dir)
        found |= {*root.glob("lottery*"), *(root / str(logger.name)).glob("*/lottery*")}
    return [path for path in sorted(found) if path.is_dir()]
