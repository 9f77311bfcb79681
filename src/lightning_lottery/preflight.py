"""What is refused before training begins."""

from pathlib import Path
from tempfile import TemporaryDirectory

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn

from lightning_lottery.errors import ConfigurationError
from lightning_lottery.prunable import prunable_parameters, refuse_lazy
from lightning_lottery.records import RunFolder
from lightning_lottery.run import dense_ticket
from lightning_lottery.settings import Settings
from lightning_lottery.ticket import Ticket


def check_trainer(trainer: Trainer, owner: Callback) -> None:
    """Refuses a Trainer that cannot train rounds.

    Raises:
        ConfigurationError: With what came, what is allowed and what to write.
    """
    others = [callback for callback in trainer.callbacks if isinstance(callback, type(owner))]  # type: ignore[attr-defined]
    if len(others) > 1:
        raise ConfigurationError(
            f"The Trainer has {len(others)} callbacks of type {type(owner).__name__}; one fit follows one of "
            "them. Keep one, and start another Trainer for the other experiment."
        )
    if not isinstance(trainer.strategy, SingleDeviceStrategy):
        raise ConfigurationError(
            f"The strategy {type(trainer.strategy).__name__} is not supported yet; rounds run on one device. "
            "Write Trainer(devices=1, strategy='auto')."
        )
    endless = trainer.max_epochs == -1 and trainer.max_steps == -1
    if endless and not any(isinstance(callback, EarlyStopping) for callback in trainer.callbacks):  # type: ignore[attr-defined]
        raise ConfigurationError(
            "max_epochs=-1 came without another limit, so the first round would never end (max_time is the "
            "budget of all rounds together). Write the length of one round, for example Trainer(max_epochs=10)."
        )


def check_start(trainer: Trainer, has_nothing_to_train: bool) -> None:
    """Refuses a fit that does not begin at step 0; call it in ``on_fit_start``, when this is known.

    Raises:
        ConfigurationError: With what came and what to write.
    """
    # Lightning's tuner goes back to a checkpoint of its own, in on_fit_start before ours.
    tuner = (".lr_find_", ".scale_batch_size_")
    if trainer.ckpt_path is not None and not Path(trainer.ckpt_path).name.startswith(tuner):
        raise ConfigurationError(
            f"ckpt_path={str(trainer.ckpt_path)!r} came, but going on with a run from a checkpoint is not "
            "supported yet. To start from trained weights, load them into the model before fit."
        )
    if trainer.global_step > 0 and not has_nothing_to_train:
        raise ConfigurationError(
            f"This Trainer has trained {trainer.global_step} steps already, and a round begins at step 0. Make a "
            "new Trainer for a new run."
        )


def check_module(module: LightningModule, settings: Settings) -> dict[str, nn.Parameter]:
    """Refuses a LightningModule that does not go with the arguments.

    Returns:
        Its prunable parameters by name.

    Raises:
        ConfigurationError: With what came, what is allowed and what to write.
    """
    refuse_lazy(module)
    parameters = prunable_parameters(module, settings.include, settings.exclude)
    settings.sizes.counts(sum(parameter.numel() for parameter in parameters.values()))
    if settings.controls:
        dense = dense_ticket(module, parameters)
        for control in settings.controls:
            with isolate_rng():  # else what a control draws would change the training
                control.check(dense, module)
                made = control.ticket(dense, dense, module, seed=0)  # to fail now, not after the last ticket
            if not isinstance(made, Ticket):
                raise ConfigurationError(
                    f"The control {control!r} must return a Ticket, and has returned {made!r}."
                )
    return parameters


def choose_folder(trainer: Trainer, settings: Settings) -> RunFolder:
    """The run folder that the arguments ask for.

    Raises:
        ConfigurationError: It holds another run.
    """
    if trainer.fast_dev_run:  # type: ignore[attr-defined]  # a trial leaves no files, as with Lightning's own
        temporary = TemporaryDirectory(prefix="lottery-")
        return RunFolder(Path(temporary.name), temporary)
    if settings.dirpath is None:
        return RunFolder.next_free(Path(trainer.log_dir or trainer.default_root_dir) / "lottery")
    folder = RunFolder(settings.dirpath)
    if folder.holds_records() and not settings.overwrite:
        raise ConfigurationError(
            f"dirpath={str(settings.dirpath)!r} holds another run. Write another folder, or overwrite=True to "
            "replace that run."
        )
    return folder
