"""What is refused before training begins."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import (
    BaseFinetuning,
    BatchSizeFinder,
    EarlyStopping,
    LearningRateFinder,
    ModelPruning,
    StochasticWeightAveraging,
)
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities.seed import isolate_rng

from lightning_lottery.errors import ConfigurationError
from lightning_lottery.masks import count, is_sharded, like, local
from lightning_lottery.preflight.settings import Settings
from lightning_lottery.pruning import Layer, Magnitude, Pruner, Selection, Unstructured, examine, layers_of
from lightning_lottery.rules import make_control
from lightning_lottery.tickets import dense_ticket

_FINDERS = (LearningRateFinder, BatchSizeFinder)
_CHANGING = (StochasticWeightAveraging, BaseFinetuning)


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
    _check_callbacks(trainer, settings)
    # Strategies of others are those of Lightning that they derive from, such as RayDDPStrategy.
    bases = (base for base in type(trainer.strategy).__mro__ if base.__module__.startswith("lightning."))
    if next(bases, None) not in (SingleDeviceStrategy, DDPStrategy, ModelParallelStrategy):
        raise ConfigurationError(
            f"The strategy {type(trainer.strategy).__name__} is not supported. For several devices write "
            "Trainer(strategy='ddp'), for weights that are too large for one of them "
            "Trainer(strategy=ModelParallelStrategy()) with fully_shard in configure_model (FSDP2); or else "
            "Trainer(devices=1, strategy='auto')."
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


def _check_callbacks(trainer: Trainer, settings: Settings) -> None:
    """Refuses other callbacks that do not go with ours."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    if any(isinstance(callback, ModelPruning) for callback in callbacks):
        raise ConfigurationError(
            "ModelPruning came with LotteryTicketCallback, and both would prune the same network: its masks would "
            "rename the weights. Keep one of them."
        )
    changing = [callback for callback in callbacks if isinstance(callback, _CHANGING)]
    if changing and settings.rewind.schedule.amount:
        raise ConfigurationError(
            f"rewind={settings.rewind!r} came with {type(changing[0]).__name__}, which exchanges schedulers or "
            "adds groups of parameters while it trains, so that the schedule cannot return to a later point. "
            "Rewind to initialisation, or leave one of them out."
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


def check_module(
    module: LightningModule, settings: Settings, copies: Mapping[str, str | None] | None = None
) -> Selection:
    """Refuses a LightningModule that does not go with the arguments.

    Args:
        module: The LightningModule.
        settings: The arguments.
        copies: If a run goes on, whose weights are not those of a beginning, the copies that it began with.

    Returns:
        What of it is pruned.

    Raises:
        ConfigurationError: With what came, what is allowed and what to write.
    """
    _check_optimizers(module)
    selection = examine(module, settings.include, settings.exclude, is_initial=copies is None, copies=copies)
    layers = layers_of(module, selection.parameters)
    _check_sharded(module, settings, layers)
    pruner = settings.method.plan(layers, settings.sizes)
    if settings.controls:
        _try_controls(module, settings, selection, pruner)
    return selection


def _check_optimizers(module: LightningModule) -> None:
    """Refuses a training without optimizers, or with some that no round could begin anew."""
    groups = [group for optimizer in module.trainer.optimizers for group in optimizer.param_groups]
    if not any(group["params"] for group in groups):
        raise ConfigurationError(
            "configure_optimizers gives no optimizer that holds parameters, so that nothing would be trained. One "
            "that the LightningModule makes and steps by itself would not begin anew in each round: return it "
            "from configure_optimizers."
        )


def _try_controls(module: LightningModule, settings: Settings, selection: Selection, pruner: Pruner) -> None:
    """Tries every control on a ticket of random masks, to fail now and not after the last ticket."""
    dense = dense_ticket(module, selection.parameters)
    with isolate_rng():  # else what a control draws would change the training
        sparse = replace(dense, masks=pruner.random_masks(dense.masks), round=1)
        for control in settings.controls:
            control.check(dense, module)
            make_control(control, sparse, dense, module, seed=0)


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
