"""A ticket that a user passes: the ticket itself, or the path of its file."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from lightning_lottery.errors import ConfigurationError, LotteryError
from lightning_lottery.files import local_path
from lightning_lottery.masks import is_sharded
from lightning_lottery.storage.folder import RunFolder
from lightning_lottery.storage.names import REWIND_STATE
from lightning_lottery.storage.state import RewindState
from lightning_lottery.tickets import Ticket


@dataclass(frozen=True)
class GivenTicket:
    """A ticket, and the run that has found it.

    Attributes:
        ticket: The ticket, on the CPU.
        path: The path of its file, if it was given as one.
        folder: The run folder that contains this file, if it is in one.
    """

    ticket: Ticket
    path: Path | None = None
    folder: RunFolder | None = None

    @classmethod
    def of(cls, given: object, argument: str) -> "GivenTicket":
        """Reads and checks a ticket.

        Args:
            given: A ticket, or the path of its file.
            argument: The name of the argument, for error messages.

        Raises:
            ConfigurationError: It is neither of these, the file does not exist, or the ticket has no masks.
            TicketError: The file is damaged or not a ticket.
        """
        if isinstance(given, Ticket):
            if not given.masks:
                raise ConfigurationError(
                    f"{argument} is a ticket without masks, so that it prunes nothing. Make one with masks, for "
                    "example with Ticket.from_masks."
                )
            return cls(given.mapped(_copied))
        if not isinstance(given, (str, Path)):
            raise ConfigurationError(
                f"{argument}={given!r:.200} is neither a Ticket nor a path. Write for example "
                f"{argument}='lottery/tickets/round_03.safetensors'."
            )
        path = local_path(given, "the path of a local file")
        try:
            return cls(Ticket.load(path), path, RunFolder.of_ticket(path))
        except FileNotFoundError as error:
            raise ConfigurationError(
                f"{argument}={str(given)!r}: {error} The current folder is {Path.cwd()}."
            ) from error

    def later_start(self) -> RewindState | None:
        """The state that the round of this ticket has started from, if that is not the initial state.

        It is in the run folder only: the file of a ticket contains no optimizers, schedules and generators.

        Raises:
            ConfigurationError: The state in the run folder is damaged.
        """
        if self.folder is None or self.ticket.round == 0 or not self.folder.has(REWIND_STATE):
            return None
        try:
            state = self.folder.read_state(REWIND_STATE, RewindState)
        except LotteryError as error:
            raise ConfigurationError(
                f"The schedule with which {self.path} was trained cannot be read. To start the schedule at step "
                f"0, write TicketCallback(Ticket.load(path)). ({error})"
            ) from error
        is_later = state.point is not None or str(self.ticket.round) in state.kept
        return state if is_later and not state.is_initial(self.ticket.id) else None


def _copied(_: str, tensor: Tensor) -> Tensor:
    """A copy on the CPU, which the user cannot change any more; a sharded tensor itself."""
    return tensor if is_sharded(tensor) else tensor.detach().to("cpu", copy=True)
