"""Which channels of a network depend on each other, and their physical removal."""

from lightning_lottery.channels.coupling import find_coupling
from lightning_lottery.channels.exactness import set_to_zero
from lightning_lottery.channels.example import (
    call,
    check_example,
    example_of,
    isolated,
    outputs_of,
    resized,
    samples_in,
    to_device_of,
    unreached,
    with_noise,
)
from lightning_lottery.channels.graph import require_torch_pruning
from lightning_lottery.channels.groups import Coupling, Group, Member, along
from lightning_lottery.channels.removal import copy_of, remove, require_gradients
from lightning_lottery.channels.trial import Trial, largest_difference

__all__ = [
    "Coupling",
    "Group",
    "Member",
    "Trial",
    "along",
    "call",
    "check_example",
    "copy_of",
    "example_of",
    "find_coupling",
    "isolated",
    "largest_difference",
    "outputs_of",
    "remove",
    "require_gradients",
    "require_torch_pruning",
    "resized",
    "samples_in",
    "set_to_zero",
    "to_device_of",
    "unreached",
    "with_noise",
]
