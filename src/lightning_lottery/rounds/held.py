"""The training of one given ticket: where it starts, and its masks while it trains."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from lightning_lottery._lightning import RoundsFit, RoundsLoop, gradients_stay_masked
from lightning_lottery.errors import ConfigurationError
from lightning_lottery.masks import place
from lightning_lottery.rounds.checks import check_parameters, warn_if_emptied
from lightning_lottery.rounds.swapped_weights import ValidationWatch, check_zeros
from lightning_lottery.storage import RewindState
from lightning_lottery.tickets import Masking, Ticket

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
        parameters, masking = masked_parameters(ticket, module)
        warn_if_emptied(_NAME, ticket.masks)
        by_hand = not module.automatic_optimization
        masking.hold(trainer.optimizers, elementwise=gradients_stay_masked(module, others), by_hand=by_hand)
        return cls(module, parameters, masking, ValidationWatch(_NAME, module, parameters, masking, None))

    def end_epoch(self) -> None:
        """Checks that every pruned weight is exactly zero.

        Raises:
            TrainingError: A pruned weight is not zero, or a masked parameter was replaced.
        """
        check_parameters(_NAME, self.module, self.parameters)
        self.masking.check()

    def finish(self) -> None:
        """Sets pruned weights to zero after all hooks of the training, with a warning if they were not."""
        check_zeros(_NAME, self.masking)

    def release(self) -> None:
        """Removes all hooks from optimizers and layers. May be called twice."""
        self.masking.release()
        self.validation.release()


def masked_parameters(ticket: Ticket, module: nn.Module) -> tuple[dict[str, nn.Parameter], Masking]:
    """The parameters that a ticket masks, and their masking.

    Raises:
        TicketError: The ticket does not fit the network.
    """
    ticket.check_fits(module)
    present = dict(module.named_parameters())
    parameters = {name: present[name] for name in ticket.masks}
    return parameters, Masking(parameters, {name: place(ticket.masks[name], p) for name, p in parameters.items()})


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
    fit = RoundsFit.begin(loop)
    remedy = "To start the schedule at step 0, write TicketCallback(Ticket.load(path))."
    state.module_at(ticket.round).restore(module)
    ticket.apply(module)
    try:
        fit.rewind(True, state.point_at(ticket.round), state.fresh_optimizer)
    except ConfigurationError as error:
        raise ConfigurationError(f"{error} {remedy}") from error
    if loop.progress.nothing_to_train():
        raise ConfigurationError(
            f"The round of this ticket started at step {loop.trainer.global_step} in epoch "
            f"{loop.trainer.current_epoch}, where this Trainer has already reached its limits. Train longer "
            f"(max_epochs, max_steps). {remedy}"
        )
