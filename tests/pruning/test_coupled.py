"""CoupledChannels: units, scores, masks."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lightning_lottery import (
    ConfigurationError,
    Context,
    CoupledChannels,
    Global,
    Layerwise,
    LotteryTicketCallback,
    Magnitude,
    Random,
    Sizes,
)
from lightning_lottery.channels import find_coupling
from lightning_lottery.pruning.layers import layers_of
from lightning_lottery.pruning.method import Method
from tests.helpers.channels import GROUPS, KERNELS, Residual, moved
from tests.helpers.contracts import COUPLED, SCOPES
from tests.helpers.fits import Model

IMAGES = torch.rand(2, 1, 28, 28)
NETWORK = moved(Residual())
COUPLING = find_coupling(NETWORK, IMAGES)
FOLLOWING = {name for _, names in GROUPS.values() for name in names if name not in KERNELS}


def plan(pattern=None, sizes=None, scope=None, kernels=KERNELS, start=None, criterion=None):
    layers = layers_of(NETWORK, {name: NETWORK.get_parameter(name) for name in kernels})
    method = Method(criterion or Magnitude(), scope or Global(), pattern or CoupledChannels())
    return method.plan(layers, sizes or Sizes(densities=[0.7, 0.4]), start, COUPLING)


def all_alive(pruner, kernels=KERNELS):
    names = [*kernels, *pruner.units.following]
    return {name: torch.ones_like(NETWORK.get_parameter(name), dtype=torch.bool) for name in names}


def prune(pruner, number, masks, network=NETWORK):
    # The weights of removed units are zero, as after a training.
    weights = {name: network.get_parameter(name) * masks[name] for name in KERNELS}
    made, _ = pruner.masks(
        number, masks, lambda m: Context(weights, weights, {n: m[n] for n in KERNELS}, network, None, seed=3)
    )
    return made


def units_of(masks):
    """The surviving units of each group, by hand. Checks that all parameters of a unit agree."""
    alive = {}
    for name, (units, parameters) in GROUPS.items():
        alive[name] = masks[name].flatten(1).any(1)
        assert alive[name].shape == (units,)
        for parameter in parameters:
            mask = masks[parameter].flatten(1) if masks[parameter].dim() > 1 else masks[parameter][:, None]
            assert torch.equal(mask, alive[name][:, None].expand(mask.shape)), parameter
    return alive


def scores_by_hand(norm, normalise, alive=None):
    """The score of every unit, as (score, name of the group, unit)."""
    scores = []
    for name, (units, parameters) in GROUPS.items():
        norms = {}
        for unit in range(units) if alive is None else alive[name].nonzero().flatten().tolist():
            rows = [NETWORK.get_parameter(kernel)[unit].flatten() for kernel in parameters if kernel in KERNELS]
            norms[unit] = sum(abs(value) ** norm for value in torch.cat(rows).tolist()) ** (1 / norm)
        mean = sum(norms.values()) / len(norms) if normalise else 1
        scores += [(value / mean, name, unit) for unit, value in norms.items()]
    return sorted(scores)


@pytest.mark.parametrize(("norm", "normalise"), [(2, True), (2, False), (1, True), (3, False)])
def test_the_units_with_the_smallest_scores_are_removed(norm, normalise):
    pruner = plan(CoupledChannels(norm, normalise), scope=Global(keep_alive=False))
    assert pruner.counts == [31, round(0.7 * 31), round(0.4 * 31)]
    masks, alive = all_alive(pruner), None
    for number in (1, 2):
        masks = prune(pruner, number, masks)
        kept = {(n, unit) for _, n, unit in scores_by_hand(norm, normalise, alive)[-pruner.counts[number] :]}
        alive = units_of(masks)
        assert {(n, unit) for n, units in alive.items() for unit in units.nonzero().flatten().tolist()} == kept


def test_biases_and_normalisations_follow_and_outputs_are_kept_whole():
    pruner = plan()
    assert set(pruner.units.following) == FOLLOWING
    assert pruner.units.whole == {"output.weight": "its channels are outputs of the network"}
    assert {layer.name: layer.units for layer in pruner.layers.values()} == {n: u for n, (u, _) in GROUPS.items()}
    masks = prune(pruner, 1, all_alive(pruner))
    assert masks.keys() == {*KERNELS, *FOLLOWING}
    assert masks["output.weight"].all()


@pytest.mark.parametrize("pattern", COUPLED, ids=repr)
@pytest.mark.parametrize("scope", SCOPES, ids=repr)
def test_every_scope_keeps_exact_counts_of_nested_units(scope, pattern):
    pruner = plan(pattern, Sizes(densities=[0.8, 0.5]), scope)
    masks = [all_alive(pruner)]
    for number in (1, 2):
        masks.append(prune(pruner, number, masks[-1]))
    for number, made in enumerate(masks):
        alive = units_of(made)
        for pool in pruner.pools:
            assert pool.keep[number] == sum(int(alive[name].sum()) for name in pool.names)
        if number:
            assert not any((mask & ~masks[number - 1][name]).any() for name, mask in made.items())


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), density=st.floats(0.3, 0.9))
def test_any_ticket_can_be_the_start(seed, density):
    """A unit is alive if any of its weights is; masks of the ticket stay."""
    generator = torch.Generator().manual_seed(seed)
    start = {n: torch.rand(NETWORK.get_parameter(n).shape, generator=generator) < density / 20 for n in KERNELS}
    dead = {}
    for name, (units, parameters) in GROUPS.items():
        kernels = [parameter for parameter in parameters if parameter in KERNELS]
        dead[name] = [u for u in range(units) if not any(start[kernel][u].any() for kernel in kernels)]
    alive = sum(units for units, _ in GROUPS.values()) - sum(map(len, dead.values()))
    if alive < 8 or any(len(dead[name]) == units for name, (units, _) in GROUPS.items()):
        return
    pruner = plan(sizes=Sizes(1, amount=0.3), start=start)
    assert pruner.counts == [alive, alive - round(0.3 * alive)]
    masks = prune(pruner, 1, {**all_alive(pruner), **start})
    assert not any((masks[name] & ~mask).any() for name, mask in start.items())
    for name, units in dead.items():
        for parameter in GROUPS[name][1]:
            assert not masks[parameter][units].any(), "what follows a dead unit is zero"


def test_names_of_tied_layers_can_be_used_in_scopes():
    pruner = plan(scope=Global(min_density={"back.weight": 1.0}))
    masks = prune(pruner, 2, prune(pruner, 1, all_alive(pruner)))
    assert masks["stem.weight"].all()
    assert not masks["inner.weight"].all()
    pruner = plan(scope=Layerwise(layer_amounts={"depthwise.*": 0.0}), sizes=Sizes(2, amount=0.5))
    masks = prune(pruner, 1, all_alive(pruner))
    assert masks["stem.weight"].all()
    assert int(masks["hidden.bias"].sum()) == 6


def test_a_group_with_a_weight_that_is_not_prunable_is_kept_whole():
    kernels = [name for name in KERNELS if name != "back.weight"]
    pruner = plan(kernels=kernels)
    assert (
        pruner.units.whole["stem.weight"]
        == pruner.units.whole["depthwise.weight"]
        == "back.weight is not prunable"
    )
    assert [layer.name for layer in pruner.layers.values()] == [
        "inner.weight",
        "pointwise.weight",
        "hidden.weight",
    ]
    assert not {"stem_norm.weight", "back_norm.bias"} & set(pruner.units.following)


def test_a_bias_that_is_prunable_counts():
    pruner = plan(kernels=[*KERNELS, "inner.bias"])
    assert "inner.bias" not in pruner.units.following
    masks = all_alive(pruner, [*KERNELS, "inner.bias"])
    scores = {name: torch.zeros_like(mask.float()) for name, mask in masks.items()}
    scores["inner.weight"][2, 0, 0, :2] = torch.tensor([2.0, 4.0])
    scores["inner.bias"][[2, 4]] = torch.tensor([4.0, 3.0])
    assert pruner.units.scores(scores)["inner.weight"].tolist() == [0, 0, 6 / 4.5, 0, 3 / 4.5]


def test_a_network_without_such_channels_is_refused():
    network = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 2))
    layers = layers_of(network, dict(itertools.islice(network.named_parameters(), 1)))
    coupling = find_coupling(network, torch.rand(2, 4))
    with pytest.raises(
        ConfigurationError, match=r"no channels that can be removed \(0.weight: 1 \(LayerNorm\) normal"
    ):
        Method(Magnitude(), Global(), CoupledChannels()).plan(layers, Sizes(1, 0.5), None, coupling)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"norm": 0}, "norm=0 must be"), ({"norm": "2"}, "norm='2'"), ({"normalise": 1}, "normalise=1 must be True")],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        CoupledChannels(**arguments)


def test_random_scores_are_per_unit():
    pruner = plan(criterion=Random())
    alive = units_of(prune(pruner, 1, all_alive(pruner)))
    assert sum(int(kept.sum()) for kept in alive.values()) == pruner.counts[1]


def test_a_preview_needs_an_example(capsys):
    lottery = LotteryTicketCallback(densities=[0.5], pattern=CoupledChannels())
    model = Model(Residual())
    with pytest.raises(ConfigurationError, match=r"could not be found without data. Set self.example_input_array"):
        lottery.preview(model)
    shown = lottery.preview(model, IMAGES)
    model.example_input_array = IMAGES
    assert lottery.preview(model) == shown
    assert shown.units == 31
    assert shown.kept_whole == {"its channels are outputs of the network": ["network.output.weight"]}
    assert "its channels are outputs of the network  network.output.weight" in capsys.readouterr().out
