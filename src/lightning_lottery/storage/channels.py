"""The channels that a run removes, for the processes that resume it."""

from dataclasses import dataclass

from lightning_lottery.channels import Coupling
from lightning_lottery.storage.plain_values import State


@dataclass(frozen=True)
class ChannelsState(State):
    """The content of ``channels.pt``.

    Attributes:
        coupling: The channels of the network that depend on each other.
    """

    coupling: Coupling
