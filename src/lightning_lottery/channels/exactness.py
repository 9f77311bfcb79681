"""Whether the removal of channels leaves the outputs of a network as they are."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from lightning_lottery.channels.groups import Group, Member, along
from lightning_lottery.channels.removal import copy_of, remove
from lightning_lottery.channels.trial import Trial, largest_difference
from lightning_lottery.errors import ConfigurationError

# Removing zeros only changes the order of sums, which costs a few units in the last place.
_TOLERANCE, _TOLERANCE_IN_DOUBLE = 1e-4, 1e-9


def exact_groups(network: nn.Module, trial: Trial, groups: Sequence[Group]) -> list[Group]:
    """The groups of which channels can be removed without a change of the outputs, found by trying it.

    Half of the channels are set to zero and then removed, in a copy with random weights, biases and statistics,
    so that no accident of the present values hides a difference.

    Args:
        network: The network, in the precision of the trial.
        trial: The inputs to try it on.
        groups: The groups to try.
    """
    return _passing(_with_other_values(network, trial), trial, [], list(groups))


def _passing(network: nn.Module, trial: Trial, kept: list[Group], tried: list[Group]) -> list[Group]:
    """The groups among those tried that pass together with those that are kept, by bisection."""
    if not tried or _is_exact(network, trial, [*kept, *tried]):
        return tried
    if len(tried) == 1:
        return []
    middle = len(tried) // 2
    first = _passing(network, trial, kept, tried[:middle])
    return first + _passing(network, trial, [*kept, *first], tried[middle:])


def _is_exact(network: nn.Module, trial: Trial, groups: Sequence[Group]) -> bool:
    generator = torch.Generator().manual_seed(0)
    masked = copy_of(network)
    dead = [(group, _half(group.units, generator)) for group in groups]
    for group, units in dead:
        set_to_zero(masked, group.producers, units)
    try:
        expected = trial.outputs(masked)
        remove(masked, dead)
        difference = largest_difference(trial.outputs(masked), expected)
    except (ConfigurationError, RuntimeError, IndexError, ValueError):  # the network does not run without them
        return False
    return difference <= (_TOLERANCE_IN_DOUBLE if trial.is_double else _TOLERANCE)


@torch.no_grad()
def set_to_zero(module: nn.Module, members: Sequence[Member], units: Tensor) -> None:
    """Sets the parameters of some units to zero, in place.

    Args:
        module: The network.
        members: Members of the group.
        units: Boolean, shape (units,).
    """
    for member in members:
        for name, dim in member.tensors.items():
            tensor = module.get_parameter(name)
            tensor.masked_fill_(along(member.of_channels(units).to(tensor.device), tensor, dim), 0)


def _half(units: int, generator: torch.Generator) -> Tensor:
    """Half of the units, at random; not all."""
    chosen = torch.zeros(units, dtype=torch.bool)
    chosen[torch.randperm(units, generator=generator)[: units // 2]] = True
    return chosen


def _with_other_values(network: nn.Module, trial: Trial) -> nn.Module:
    """A copy with random values; with the present values, changed a little, if random ones give no numbers."""
    randomised = copy_of(network)
    _randomise(randomised)
    try:
        if all(bool(tensor.isfinite().all()) for tensor in trial.outputs(randomised)):
            return randomised
    except ConfigurationError:
        pass
    jittered = copy_of(network)
    _jitter(jittered)
    return jittered


@torch.no_grad()
def _randomise(module: nn.Module) -> None:
    """Replaces all parameters and statistics by random numbers of usual size."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        if not parameter.is_floating_point():
            continue
        if parameter.dim() > 1:
            values = torch.randn(parameter.shape, generator=generator) * parameter[0].numel() ** -0.5
        else:
            values = torch.rand(parameter.shape, generator=generator) + 0.5
        parameter.copy_(values)
    for layer in module.modules():
        if isinstance(layer, _NormBase) and layer.running_mean is not None:
            layer.running_mean.copy_(torch.randn(layer.running_mean.shape, generator=generator))
            layer.running_var.copy_(torch.rand(layer.running_var.shape, generator=generator) + 0.5)  # type: ignore[union-attr]


@torch.no_grad()
def _jitter(module: nn.Module) -> None:
    """Multiplies all parameters by random factors between 0.5 and 1.5, which keeps their signs."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        if parameter.is_floating_point():
            parameter.mul_((torch.rand(parameter.shape, generator=generator) + 0.5).to(parameter))
