"""Checks before training begins."""

from collections.abc import Mapping, Sequence
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
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import nn

from lightning_lottery.channels import require_torch_pruning
from lightning_lottery.errors import ConfigurationError
from lightning_lottery.masks import count, is_sharded, like, local
from lightning_lottery.pruning import (
    Layer,
    Magnitude,
    Selection,
    Unstructured,
    check_and_select,
    layers_of,
)
from lightning_lottery.rules import Settings
from lightning_lottery.tickets import Ticket

_FINDERS = (LearningRateFinder, BatchSizeFinder)
_CHANGING = (StochasticWeightAveraging, BaseFinetuning)


def check_trainer(trainer: Trainer, kind: type[Callback]) -> None:
    """Checks that a Trainer can train tickets.

    Args:
        trainer: The Trainer.
        kind: The base class of our callbacks.

    Raises:
        ConfigurationError: It cannot.
    """
    if not isinstance(trainer, Trainer):
        raise ConfigurationError(
            f"The Trainer comes from the package {type(trainer).__module__.split('.')[0]}. Import Trainer, "
            "LightningModule and everything else from lightning.pytorch, since the two packages do not work "
            "together."
        )
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    ours = [callback for callback in callbacks if isinstance(callback, kind)]
    names = list(dict.fromkeys(map(_own_name, ours)))
    if len(names) > 1:
        raise ConfigurationError(
            f"{' and '.join(names)} cannot be combined in one Trainer: both would decide what is pruned. To "
            "search for smaller tickets from a ticket on, write LotteryTicketCallback(..., start=ticket) alone. "
            "To train the ticket, keep TicketCallback alone."
        )
    if len(ours) > 1:
        raise ConfigurationError(
            f"The Trainer has {len(ours)} callbacks of type {names[0]}, but a fit supports only one. Keep one, "
            "and use another Trainer for the other experiment."
        )
    if any(isinstance(callback, ModelPruning) for callback in callbacks):
        raise ConfigurationError(
            f"ModelPruning cannot be combined with {names[0]}: both would prune the same network, and the masks "
            "of ModelPruning rename the weights. Keep one of them."
        )
    # Third-party strategies, such as RayDDPStrategy, count as the Lightning strategy that they derive from.
    bases = (base for base in type(trainer.strategy).__mro__ if base.__module__.startswith("lightning."))
    if next(bases, None) not in (SingleDeviceStrategy, DDPStrategy, ModelParallelStrategy):
        raise ConfigurationError(
            f"The strategy {type(trainer.strategy).__name__} is not supported. For several devices write "
            "Trainer(strategy='ddp'); for a network that does not fit on one device, "
            "Trainer(strategy=ModelParallelStrategy()) with fully_shard in configure_model (FSDP2); otherwise "
            "Trainer(devices=1, strategy='auto')."
        )


def _own_name(callback: Callback) -> str:
    """The name of the class of this package that a callback is, or derives from."""
    package = __name__.partition(".")[0]
    return next(base.__name__ for base in type(callback).__mro__ if base.__module__.startswith(f"{package}."))


def check_rounds(trainer: Trainer, settings: Settings) -> None:
    """Checks that a Trainer can train round after round.

    Raises:
        ConfigurationError: It cannot.
    """
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    changing = [callback for callback in callbacks if isinstance(callback, _CHANGING)]
    if changing and settings.rewind.schedule.amount:
        raise ConfigurationError(
            f"rewind={settings.rewind!r} cannot be combined with {type(changing[0]).__name__}, which replaces "
            "schedulers or adds parameter groups during training, so that the schedule cannot return to a later "
            "point. Rewind to initialisation, or leave out one of them."
        )
    _warn_of_repetition(settings)
    window = max((rule.window for rule in settings.stop), default=0)
    if trainer.max_epochs not in (None, -1) and window > int(trainer.max_epochs or 0):
        raise ConfigurationError(
            f"stop={list(settings.stop)} compares the masks of {window} epochs, but a round has max_epochs="
            f"{trainer.max_epochs}. Use a smaller window or longer rounds."
        )
    endless = trainer.max_epochs == -1 and trainer.max_steps == -1
    if endless and not any(isinstance(callback, EarlyStopping) for callback in callbacks):
        raise ConfigurationError(
            "max_epochs=-1 needs another limit, since the first round would never end (max_time is the budget of "
            "all rounds together). Set the length of one round, for example Trainer(max_epochs=10)."
        )


def _warn_of_repetition(settings: Settings) -> None:
    """Warns of rounds that give the same weights as the round before, bit for bit."""
    sizes, start = settings.sizes, settings.start
    numbers = [number for number in range(2, sizes.last_round + 1) if sizes.repeats(number)]
    if sizes.densities and start is not None and round(sizes.densities[0] * start.prunable) == start.kept:
        numbers = [1, *numbers]
    if numbers and settings.rewind.weights is not None and settings.same_data_order:
        rank_zero_warn(
            f"The rounds {numbers} have the density of the round before, and rewind={settings.rewind!r} returns "
            "to the same weights and data order, so that each only repeats the round before. For cyclic training "
            "write rewind=LearningRate(); for another data order, same_data_order=False.",
        )


def check_finders(trainer: Trainer) -> None:
    """Checks that no tuner runs before a resumed fit. Call it before ``on_fit_start``.

    Raises:
        ConfigurationError: There is a learning-rate or batch-size finder.
    """
    finders = [callback for callback in trainer.callbacks if isinstance(callback, _FINDERS)]  # type: ignore[attr-defined]
    if finders:
        raise ConfigurationError(
            f"{type(finders[0]).__name__} runs when a fit begins, and then Lightning does not continue at the "
            "checkpoint. To resume, leave it out and set the value that it had found."
        )


def check_resume(trainer: Trainer, is_resumed: bool) -> None:
    """Checks that the strategy supports resuming.

    Raises:
        ConfigurationError: It does not.
    """
    if isinstance(trainer.strategy, ModelParallelStrategy) and (is_resumed or trainer.ckpt_path is not None):
        raise ConfigurationError(
            "Resuming with ModelParallelStrategy is not supported. Fit without ckpt_path, from round 0."
        )


def check_start(trainer: Trainer, is_resumed: bool, has_nothing_to_train: bool) -> None:
    """Checks that a fit begins at step 0 or resumes a run. Call it in ``on_fit_start``.

    Raises:
        ConfigurationError: It does neither.
    """
    if is_resumed:
        return
    # Lightning's tuners load their own checkpoint, in on_fit_start before ours.
    tuner = (".lr_find_", ".scale_batch_size_")
    if trainer.ckpt_path is not None and not Path(trainer.ckpt_path).name.startswith(tuner):
        raise ConfigurationError(
            f"ckpt_path={str(trainer.ckpt_path)!r} contains no round to resume: it was written without "
            "LotteryTicketCallback, or after all rounds were finished. To resume a run, use "
            "lottery.resume(trainer). To start from trained weights, load them into the model before fit."
        )
    if trainer.global_step > 0 and not has_nothing_to_train:
        raise ConfigurationError(
            f"This Trainer has already trained {trainer.global_step} steps, but a run begins at step 0. Create a "
            "new Trainer for a new run."
        )


def check_module(
    module: LightningModule, settings: Settings, copies: Mapping[str, str | None] | None = None
) -> Selection:
    """Checks a LightningModule against the arguments.

    Args:
        module: The LightningModule.
        settings: The arguments.
        copies: For a resumed run, the copies of trained weights that it was started with; ``None`` for a new run.

    Returns:
        The parameters that are pruned and those that are not.

    Raises:
        ConfigurationError: The module does not work with the arguments, or an optional package is missing.
        TicketError: The ticket to start from does not fit the module.
    """
    _check_optimizers(module)
    selection = select_for(module, settings, copies)
    layers = layers_of(module, selection.parameters)
    _check_sharded(module, settings, layers)
    if settings.method.pattern.needs_example:
        require_torch_pruning()  # the data, and so the examples, are loaded later
    else:
        settings.plan(layers)
    return selection


def select_for(module: nn.Module, settings: Settings, copies: Mapping[str, str | None] | None = None) -> Selection:
    """Finds the parameters to prune, and checks the ticket that the search starts from.

    Args:
        module: The network.
        settings: The arguments.
        copies: See :func:`check_module`.

    Raises:
        ConfigurationError: The network does not work with the arguments.
        TicketError: The ticket does not fit the network.
    """
    is_initial = copies is None and settings.start is None
    selection = check_and_select(module, settings.include, settings.exclude, is_initial=is_initial, copies=copies)
    if settings.start is not None:
        _check_ticket(settings.start, module, selection)
    return selection


def _check_ticket(ticket: Ticket, module: nn.Module, selection: Selection) -> None:
    """Checks that a search can start from a ticket."""
    ticket.check_fits(module)
    sparse = [name for name, density in ticket.layer_densities().items() if density < 1]
    if lost := [name for name in sparse if name not in selection.parameters]:
        reasons = ", ".join(f"{name!r} ({selection.left_out[name]})" for name in lost)
        raise ConfigurationError(
            f"The ticket given as start has pruned weights in {reasons}, which would not be prunable. Write "
            f"include={lost}, or leave them out of exclude; or make a ticket without their masks."
        )


def _check_optimizers(module: LightningModule) -> None:
    """Checks that Lightning knows the optimizers, so that every round can start with new ones."""
    groups = [group for optimizer in module.trainer.optimizers for group in optimizer.param_groups]
    if not any(group["params"] for group in groups):
        raise ConfigurationError(
            "configure_optimizers returns no optimizer with parameters, so nothing would be trained. An optimizer "
            "that the LightningModule creates elsewhere would not start afresh in each round. Return it from "
            "configure_optimizers."
        )


def _check_sharded(module: LightningModule, settings: Settings, layers: Sequence[Layer]) -> None:
    """Checks that the arguments are supported for sharded weights."""
    if not any(map(is_sharded, module.parameters())):
        return
    late = settings.rewind.schedule.amount > 0 or settings.rewind.weights is None
    if late or settings.controls:
        raise ConfigurationError(
            f"{'rewind=' + repr(settings.rewind) if late else f'controls={list(settings.controls)}'} is not "
            "supported for sharded weights. "
            "Rewind to initialisation, and train controls on one device or with strategy='ddp'."
        )
    if settings.search is not None and settings.ticket_rounds != [settings.sizes.last_round]:
        raise ConfigurationError(
            f"full_rounds={settings.full_rounds!r} is not supported for sharded weights, of which only the last "
            "ticket can train after the search. Leave out full_rounds, or train on one device or with "
            "strategy='ddp'."
        )
    method = settings.method
    if not isinstance(method.criterion, Magnitude) or type(method.pattern) is not Unstructured or settings.stop:
        raise ConfigurationError(
            "Sharded weights support only Magnitude(), Unstructured() and no stop rules, but got "
            f"{method.criterion}, {method.pattern} and stop={list(settings.stop)}. Change these arguments, or "
            "train on one device or with strategy='ddp'."
        )
    if normed := [layer.name for layer in layers if layer.norm_dims is not None]:
        raise ConfigurationError(
            f"The sharded weights {normed} are divided by their own norms, which is not supported. Leave them out "
            f"with exclude={normed}."
        )
    for name, parameter in module.named_parameters():
        everywhere = like(torch.ones_like(local(parameter), dtype=torch.bool), parameter)
        if count([everywhere]) != [parameter.numel()]:
            raise ConfigurationError(
                f"The weights {name!r} are distributed over the processes in an unsupported way. Shard them with "
                "fully_shard over a single mesh, as with ModelParallelStrategy(tensor_parallel_size=1)."
            )
