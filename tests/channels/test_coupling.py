"""Which channels are coupled, and which cannot be removed."""

import copy
import sys
import threading

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn

from lightning_lottery import ConfigurationError
from lightning_lottery.channels import find_coupling
from tests.helpers.channels import GROUPS, Residual
from tests.helpers.fits import Model, same_bits

IMAGES = torch.rand(3, 1, 28, 28)


def reasons(*layers, example=None):
    """Why weights are kept whole, in a network between two linear layers or convolutions."""
    coupling = find_coupling(nn.Sequential(*layers), torch.rand(2, 6) if example is None else example)
    return dict(coupling.whole)


def test_groups_are_those_that_were_written_down_by_hand():
    coupling = find_coupling(Residual(), IMAGES)
    assert {group.name: (group.units, set(group.parameters)) for group in coupling.groups} == {
        name: (units, set(parameters)) for name, (units, parameters) in GROUPS.items()
    }
    assert set(coupling.whole) == {"output.weight", "output.bias"}
    for group in coupling.groups:
        for member in group.producers:
            assert member.channels.tolist() == list(range(group.units))
            assert set(member.tensors.values()) == {0}
    consumers = {group.name: {member.layer for member in group.consumers} for group in coupling.groups}
    assert consumers == {
        "stem.weight": {"inner", "pointwise"},
        "inner.weight": {"back"},
        "pointwise.weight": {"hidden"},
        "hidden.weight": {"output"},
    }
    (flattened,) = [member for member in coupling.groups[2].consumers if member.layer == "hidden"]
    assert flattened.channels.tolist() == [place // 9 for place in range(72)]


def test_a_concatenation_shares_the_channels_of_a_normalisation():
    class Dense(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 2, 3, padding=1)
            self.norm, self.last = nn.BatchNorm2d(5), nn.Conv2d(5, 4, 1)

        def forward(self, images):
            one = self.one(images)
            return self.last(self.norm(torch.cat([one, self.two(one.relu())], 1)))

    coupling = find_coupling(Dense(), IMAGES)
    members = [(group.name, member) for group in coupling.groups for member in group.members]
    channels = {(name, member.layer): member.channels.tolist() for name, member in members}
    assert channels["one.weight", "norm"] == channels["one.weight", "last"] == [0, 1, 2, -1, -1]
    assert channels["two.weight", "norm"] == channels["two.weight", "last"] == [-1, -1, -1, 0, 1]
    assert channels["one.weight", "two"] == [0, 1, 2]


def test_transposed_convolutions_have_their_channels_along_other_dimensions():
    network = nn.Sequential(nn.ConvTranspose2d(1, 3, 2), nn.ReLU(), nn.ConvTranspose2d(3, 1, 2))
    (group,) = find_coupling(network, IMAGES).groups
    assert {(member.role, *member.tensors.items()) for member in group.members} == {
        ("outputs", ("0.weight", 1), ("0.bias", 0)),
        ("inputs", ("2.weight", 0)),
    }


class Functional(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, features):
        return self.function(features)


IMAGE = torch.rand(2, 4, 5, 5)
INEXACT = {
    "LayerNorm": ([nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 2)], None, r"1 \(LayerNorm\) normalises over"),
    "GroupNorm": (
        [nn.Conv2d(4, 8, 1), nn.GroupNorm(2, 8), nn.Conv2d(8, 2, 1)],
        IMAGE,
        r"1 \(GroupNorm\) normalises over",
    ),
    "group convolution": (
        [nn.Conv2d(4, 8, 1), nn.Conv2d(8, 8, 1, groups=2), nn.Conv2d(8, 2, 1)],
        IMAGE,
        r"1 \(Conv2d\) is a group convolution",
    ),
    "a normalisation without weights": (
        [nn.Linear(6, 8), nn.BatchNorm1d(8, affine=False), nn.Linear(8, 2)],
        None,
        "has no weight and bias",
    ),
    "weight_norm": (
        [nn.utils.parametrizations.weight_norm(nn.Linear(6, 8)), nn.ReLU(), nn.Linear(8, 2)],
        None,
        r"the weight of 0 \(ParametrizedLinear\) is computed from other parameters",
    ),
    "an activation that is not zero at zero": ([nn.Linear(6, 8), nn.Sigmoid(), nn.Linear(8, 2)], None, "changes"),
    "a functional normalisation": (
        [nn.Linear(6, 8), Functional(lambda x: nn.functional.layer_norm(x, x.shape[1:])), nn.Linear(8, 2)],
        None,
        "changes the outputs",
    ),
    "a mean over channels": (
        [nn.Linear(6, 8), Functional(lambda x: x - x.mean(1, keepdim=True)), nn.Linear(8, 2)],
        None,
        "changes the outputs",
    ),
    "a fixed number of channels": (
        [nn.Conv2d(4, 8, 1), Functional(lambda x: x.view(-1, 8, 25).mean(2)), nn.Linear(8, 2)],
        IMAGE,
        "changes the outputs",
    ),
}


@pytest.mark.parametrize("case", INEXACT)
def test_channels_whose_removal_is_not_exact_are_kept_whole(case):
    layers, example, reason = INEXACT[case]
    found = reasons(*layers, example=example)
    name = next(name for name in found if name.startswith("0."))
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(found[name])


def test_weights_that_are_zero_at_first_hide_no_difference():
    last = nn.Linear(8, 2)
    nn.init.zeros_(last.weight)
    found = reasons(nn.Linear(6, 8), nn.Sigmoid(), last)
    assert found["0.weight"] == "removing its channels changes the outputs of the network"


def test_a_shared_parameter_is_kept_whole():
    one, two = nn.Linear(6, 6), nn.Linear(6, 6)
    two.weight = one.weight
    assert "shares a parameter" in reasons(one, nn.ReLU(), two, nn.ReLU(), nn.Linear(6, 2))["0.weight"]


def test_only_the_groups_that_are_not_exact_are_kept_whole():
    network = nn.Sequential(
        *(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 5), nn.Sigmoid(), nn.Linear(5, 5), nn.ReLU()),
        *(nn.Linear(5, 5), nn.Sigmoid(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 2)),
    )
    coupling = find_coupling(network, torch.rand(2, 6))
    assert [group.name for group in coupling.groups] == ["0.weight", "4.weight", "8.weight"]


@pytest.mark.parametrize("form", ["tensor", "tuple", "dictionary"])
def test_an_example_may_be_arguments(form):
    example = {"tensor": IMAGES, "tuple": (IMAGES,), "dictionary": {"images": IMAGES}}[form]
    assert len(find_coupling(Residual(), example).groups) == len(GROUPS)


def test_nothing_is_changed(digits):
    model = Model(Residual())
    model.trainer = Trainer(logger=False, enable_progress_bar=False)
    model.network.stem.weight.requires_grad_(False)
    model.train()
    before, generator = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    assert len(find_coupling(model, digits[0][:5]).groups) == len(GROUPS)
    assert same_bits(before, model.state_dict())
    assert torch.equal(generator, torch.get_rng_state())
    assert model.training
    assert not model.network.stem.weight.requires_grad
    assert model.network.inner.weight.requires_grad
    assert not any(layer._forward_hooks for layer in model.modules())


def test_half_precision():
    assert len(find_coupling(Residual().bfloat16(), IMAGES.bfloat16()).groups) == len(GROUPS)


def test_a_wrong_shape_is_named():
    with pytest.raises(ConfigurationError, match=r"Calling Residual on an example with .* \(2, 1, 9, 9\) failed"):
        find_coupling(Residual(), torch.rand(2, 1, 9, 9))
    with pytest.raises(ConfigurationError, match="'images' contains no tensor"):
        find_coupling(Residual(), "images")


def test_a_network_that_cannot_be_traced():
    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 6)

        def forward(self, features):
            return torch.tensor(self.layer(features).tolist())

    with pytest.raises(ConfigurationError, match=r"Torch-Pruning cannot trace Cut \(.*Use pattern=Channels\(\)"):
        find_coupling(Cut(), torch.rand(2, 6))


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(ConfigurationError, match=r'pip install "lightning-lottery\[structured\]"'):
        find_coupling(Residual(), IMAGES)


@pytest.mark.parametrize("form", ["tensor", "tuple", "dictionary", "beside others"])
def test_outputs_are_known_in_any_form(form):
    """Also if an operation without parameters follows the last layer."""

    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.one, self.two = nn.Linear(6, 5), nn.Linear(5, 4), nn.Linear(5, 3)

        def forward(self, features):
            hidden = self.body(features).relu()
            one, two = self.one(hidden).log_softmax(1), self.two(hidden).sigmoid()
            forms = {"tuple": (one, two), "dictionary": {"one": one, "two": two}}
            return forms.get(
                form, torch.cat([one, two], 1) if form == "tensor" else [one, two, hidden.detach() > 0, 3]
            )

    if form == "beside others":  # the signs of the hidden channels are an output
        assert find_coupling(Head(), torch.rand(2, 6)).groups == []
        return
    coupling = find_coupling(Head(), torch.rand(2, 6))
    assert [group.name for group in coupling.groups] == ["body.weight"]
    assert coupling.whole["one.weight"] == coupling.whole["two.bias"] == "its channels are outputs of the network"


def test_a_network_that_cannot_be_copied():
    network = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    network.lock = threading.Lock()
    with pytest.raises(ConfigurationError, match=r"Sequential cannot be copied, .* cannot pickle '_thread.lock'"):
        find_coupling(network, torch.rand(2, 6))


def test_channels_that_depend_on_each_other():
    """Each half of the channels is added to the other, so that a removed channel would take a second one along."""

    class Halves(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Conv2d(1, 6, 1), nn.Conv2d(3, 2, 1)

        def forward(self, images):
            first, second = self.one(images).split([3, 3], 1)
            return self.two(first + second)

    coupling = find_coupling(Halves(), IMAGES)
    assert not coupling.groups
    assert coupling.whole["one.weight"] == "its channels depend on each other"
