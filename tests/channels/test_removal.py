"""The physical removal of channels."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lightning_lottery.channels import copy_of, find_coupling, remove
from tests.helpers.channels import Residual, moved

IMAGES = torch.rand(4, 1, 28, 28, dtype=torch.float64)
COUPLING = find_coupling(Residual(), IMAGES)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_removing_channels_that_are_zero_does_not_change_the_outputs(seed):
    generator = torch.Generator().manual_seed(seed)
    network = moved(Residual(), seed).double()
    dead = []
    for group in COUPLING.groups:
        units = torch.rand(group.units, generator=generator) < 0.6
        units[int(torch.randint(group.units, (1,), generator=generator))] = False
        dead.append((group, units))
        with torch.no_grad():
            for name in group.parameters:  # their channels lie along the first dimension, in order
                network.get_parameter(name)[units] = 0
    small = copy_of(network)
    remove(small, dead)
    assert torch.allclose(small(IMAGES), network(IMAGES), rtol=1e-12, atol=1e-12)
    left = {group.name: int((~units).sum()) for group, units in dead}
    stem, inner, pointwise, hidden = (
        left[name] for name in ("stem.weight", "inner.weight", "pointwise.weight", "hidden.weight")
    )
    expected = {
        "stem": (stem, 1, 5, 5),
        "inner": (inner, stem, 3, 3),
        "back": (stem, inner, 3, 3),
        "depthwise": (stem, 1, 3, 3),
        "pointwise": (pointwise, stem, 1, 1),
        "hidden": (hidden, 9 * pointwise),
        "output": (10, hidden),
    }
    assert {name: tuple(small.get_parameter(f"{name}.weight").shape) for name in expected} == expected
    sizes = small.stem_norm.num_features, len(small.stem_norm.running_var), small.slopes.num_parameters
    assert sizes == (stem, stem, hidden)
    attributes = small.depthwise.groups, small.depthwise.in_channels, small.depthwise.out_channels
    assert attributes == (stem, stem, stem)
    assert (small.hidden.in_features, small.hidden.out_features) == (9 * pointwise, hidden)
    assert [type(layer) for layer in small.modules()] == [type(layer) for layer in network.modules()]


def test_frozen_parameters_stay_frozen_and_the_original_is_not_changed():
    network = moved(Residual())
    network.inner.weight.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    small = copy_of(network)
    remove(small, [(group, torch.arange(group.units) == 1) for group in COUPLING.groups])
    assert not small.inner.weight.requires_grad
    assert small.inner.bias.requires_grad
    assert isinstance(small.inner.weight, nn.Parameter)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_channels_of_two_groups_leave_one_normalisation():
    class Dense(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 2, 3, padding=1)
            self.norm, self.last = nn.BatchNorm2d(5), nn.Conv2d(5, 4, 1)

        def forward(self, images):
            one = self.one(images)
            return self.last(self.norm(torch.cat([one, self.two(one.relu())], 1)))

    network = moved(Dense())
    groups = find_coupling(network, IMAGES).groups
    with torch.no_grad():
        for layer, channel in (("one", 1), ("two", 0), ("norm", 1), ("norm", 3)):
            for name in ("weight", "bias"):
                network.get_parameter(f"{layer}.{name}")[channel] = 0
    small = copy_of(network)
    remove(small, [(groups[0], torch.tensor([False, True, False])), (groups[1], torch.tensor([True, False]))])
    assert torch.equal(small.norm.running_mean, network.norm.running_mean[[0, 2, 4]])
    images = IMAGES.float()
    assert torch.allclose(small(images), network(images), atol=1e-6)
    assert small.last.weight.shape == (4, 3, 1, 1)
