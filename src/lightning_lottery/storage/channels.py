"""The channels that a run removes, for the processes that resume it."""

from dataclasses import dataclass

from lightning_lottery.channels import Coupling
from lightning_lottery.errors import LotteryError
from lightning_lottery.storage.plain_values import State


@dataclass(frozen=True)
class ChannelsState(State):
    """The content of ``channels.pt``.

    Attributes:
        coupling: The channels of the network that depend on each other.
    """

    coupling: Coupling

    def __post_init__(self) -> None:
        for group in self.coupling.groups:
            for member in group.members:
                if bool(((member.channels < -1) | (member.channels >= group.units)).any()):
                    raise LotteryError(
                        f"The channels of {member.layer} in channels.pt are damaged, so this run cannot be "
                        "resumed. Start a new run in another folder."
                    )
