"""Which channels of a network depend on each other, and their physical removal."""

from lightning_lottery.channels.coupling import find_coupling
from lightning_lottery.channels.exactness import largest_difference, set_to_zero
from lightning_lottery.channels.example import (
    call,
    example_of,
    in_single_precision,
    outputs_of,
    resized,
    to_device_of,
)
from lightning_lottery.channels.graph import require_torch_pruning
from lightning_lottery.channels.groups import Coupling, Group, Member, along
from lightning_lottery.channels.removal import copy_of, remove

__all__ = [
    "Coupling",
    "Group",
    "Member",
    "along",
    "call",
    "copy_of",
    "example_of",
    "find_coupling",
    "in_single_precision",
    "largest_difference",
    "outputs_of",
    "remove",
    "require_torch_pruning",
    "resized",
    "set_to_zero",
    "to_device_of",
]
