"""The training of one given ticket: where it starts, and its masks while it trains."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from lightning_lottery._lightning import RoundsFit, RoundsLoop, gradients_stay_masked
from lightning_lottery.errors import ConfigurationError
from lightning_lottery.masks import is_sharded
from lightning_lottery.rounds.checks import check_finite, check_parameters, warn_if_emptied
from lightning_lottery.rounds.swapped_weights import ValidationWatch, check_zeros
from lightning_lottery.storage import RewindState
from lightning_lottery.tickets import Masking, ModuleState, RoundId, Ticket, masked_parameters

_NAME = "the fit"  # in warnings and errors


@dataclass
class HeldTicket:
    """A ticket whose masks are held while its network trains, as in a round.

    Attributes:
        module: The LightningModule.
        parameters: The masked parameters by name.
        masking: Keeps the pruned weights at zero.
        validation: Detects weights that are swapped in for a validation.
    """

    module: LightningModule
    parameters: Mapping[str, nn.Parameter]
    masking: Masking
    validation: ValidationWatch

    @classmethod
    def begin(
        cls, ticket: Ticket, trainer: Trainer, module: LightningModule, others: Sequence[Callback]
    ) -> "HeldTicket":
        """Holds the masks of a ticket from now on. Weights and optimizers must be in place.

        Args:
            ticket: The ticket.
            trainer: The Trainer.
            module: The LightningModule.
            others: The other callbacks of the Trainer.
        """
        ticket.check_fits(module)
        masked = masked_parameters(ticket, module)
        masking = Masking(*masked)
        warn_if_emptied(_NAME, ticket.masks, "Use another ticket, or one without the masks of these layers.")
        by_hand = not module.automatic_optimization
        masking.hold(trainer.optimizers, elementwise=gradients_stay_masked(module, others), by_hand=by_hand)
        return cls(module, masked[0], masking, ValidationWatch(_NAME, module, masked[0], masking, None))

    def end_epoch(self) -> None:
        """Checks that every pruned weight is exactly zero.

        Raises:
            TrainingError: A pruned weight is not zero, or a masked parameter was replaced.
        """
        check_parameters(_NAME, self.module, self.parameters)
        self.masking.check()

    def finish(self) -> None:
        """Warns after all hooks if pruned weights are not zero, and sets them to zero, or if training diverged."""
        check_zeros(_NAME, self.masking)
        check_finite(_NAME, self.module)

    def release(self) -> None:
        """Removes all hooks from optimizers and layers. May be called twice."""
        self.masking.release()
        self.validation.release()


def mask_weights(ticket: Ticket, module: nn.Module) -> None:
    """Sets the weights of a network that a ticket prunes to zero, once.

    Raises:
        TicketError: The ticket does not fit the network.
    """
    ticket.check_fits(module)
    Masking(*masked_parameters(ticket, module)).mask_weights()


def rewind_to(state: RewindState, ticket: Ticket, loop: RoundsLoop, module: LightningModule) -> None:
    """Starts a fit where the round of its ticket has started: at a later point of the schedule.

    Args:
        state: What the rounds of the run return to.
        ticket: The ticket.
        loop: The fit loop, before training.
        module: The LightningModule.

    Raises:
        ConfigurationError: The Trainer does not fit the schedule, or ends before the point.
    """
    fit, point = RoundsFit.begin(loop), state.point_at(ticket.id)
    remedy = "To start the schedule at step 0, write TicketCallback(Ticket.load(path))."
    if any(map(is_sharded, module.parameters())):
        raise ConfigurationError(f"Sharded weights cannot start at the later point of this ticket. {remedy}")
    difference = None if point is None else fit.other_options(state.start)
    if difference is not None:
        raise ConfigurationError(
            f"The ticket starts at a later point of a schedule, which needs the optimizers and schedulers with "
            f"which it was found: {difference}. {remedy}"
        )
    _network_at(state, ticket.id, module).restore(module)
    ticket.apply(module)
    fit.rewind(True, point, state.fresh_optimizer)
    if loop.progress.nothing_to_train() or loop.progress.is_beyond_epoch():
        raise ConfigurationError(
            f"The round of this ticket started at step {loop.trainer.global_step} in epoch "
            f"{loop.trainer.current_epoch}, where this fit has already ended: its limits (max_epochs, max_steps) "
            f"or its epochs are shorter. Use the data and batch size of the search, or train longer. {remedy}"
        )


def _network_at(state: RewindState, entry: RoundId, module: LightningModule) -> ModuleState:
    """The network at the start of a round; what the user has frozen or unfrozen since stays so."""
    at_start, present = state.module_at(entry), ModuleState.of(module).requires_grad
    return at_start if present == state.initial.requires_grad else replace(at_start, requires_grad=present)
