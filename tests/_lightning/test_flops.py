"""Operations of a batch, against formulas by hand."""

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.checkpoint import checkpoint

from lightning_lottery import LotteryTicketCallback
from lightning_lottery._lightning.flops import FlopsOfBatch
from tests.helpers.fits import Model, Net, loaders, quiet_trainer

BATCH = 5


def counted(network, *inputs, step=None):
    """The operations of all matrices and kernels, by name, and of everything."""
    masked = {name: parameter for name, parameter in network.named_parameters() if parameter.dim() > 1}
    watch = FlopsOfBatch(masked)
    try:
        (step or (lambda: network(*inputs).sum().backward()))()
    finally:
        watch.stop()
        watch.stop()
    found = watch.result(processes=1)
    doubled = watch.result(processes=2)
    assert doubled.total == 2 * found.total
    assert doubled.by_parameter == {name: 2 * count for name, count in found.by_parameter.items()}
    return found.total, dict(found.by_parameter)


def product(outputs, inputs, times):
    """``times`` matrix products of a batch with a layer."""
    return 2 * BATCH * outputs * inputs * times


def mlp():
    return nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2, bias=False))


def test_linear_layers():
    """Forward, gradient of the weight, and gradient of the input except in the first layer."""
    layers = {"0.weight": product(6, 8, 2), "2.weight": product(4, 6, 3), "4.weight": product(2, 4, 3)}
    assert counted(mlp(), torch.randn(BATCH, 8)) == (sum(layers.values()), layers)


def test_frozen_layers_have_no_gradient_of_their_weights():
    network = mlp()
    network[2].requires_grad_(False)
    network[0].requires_grad_(False)
    layers = {"0.weight": product(6, 8, 1), "2.weight": product(4, 6, 1), "4.weight": product(2, 4, 3)}
    # Nothing before the last layer trains, so its input needs no gradient either.
    layers["4.weight"] = product(2, 4, 2)
    assert counted(network, torch.randn(BATCH, 8)) == (sum(layers.values()), layers)


def test_an_evaluation_counts_once():
    network = mlp()

    def step():
        with torch.no_grad():
            network(torch.randn(BATCH, 8))

    layers = {"0.weight": product(6, 8, 1), "2.weight": product(4, 6, 1), "4.weight": product(2, 4, 1)}
    assert counted(network, step=step) == (sum(layers.values()), layers)


@pytest.mark.parametrize("reentrant", [False, True])
def test_what_is_computed_again_in_the_backward_pass_counts_again(reentrant):
    network, images = mlp(), torch.randn(BATCH, 8, requires_grad=True)

    def step():
        checkpoint(network, images, use_reentrant=reentrant).sum().backward()

    # The new way stops before the last layer, whose output is not needed again.
    last = 4 if reentrant else 3
    layers = {"0.weight": product(6, 8, 4), "2.weight": product(4, 6, 4), "4.weight": product(2, 4, last)}
    assert counted(network, step=step) == (sum(layers.values()), layers)


@pytest.mark.parametrize("groups", [1, 2])
def test_convolutions(groups):
    network = nn.Sequential(nn.Conv2d(4, 6, 3, groups=groups), nn.ReLU(), nn.Conv2d(6, 2, 3, groups=groups))
    first = 2 * BATCH * 6 * 6 * 6 * (4 // groups) * 9
    second = 2 * BATCH * 2 * 4 * 4 * (6 // groups) * 9
    total, layers = counted(network, torch.randn(BATCH, 4, 8, 8))
    assert set(layers) == {"0.weight", "2.weight"}
    assert total == sum(layers.values())
    if groups == 1:  # torch counts the gradients of grouped convolutions as if they had no groups
        assert layers == {"0.weight": 2 * first, "2.weight": 3 * second}


def test_weights_that_are_made_from_others():
    network = nn.Sequential(weight_norm(nn.Linear(8, 6)), nn.ReLU(), nn.Linear(6, 4))
    _, layers = counted(network, torch.randn(BATCH, 8))
    assert layers["0.parametrizations.weight.original1"] == product(6, 8, 2)
    assert layers["2.weight"] == product(4, 6, 3)


def test_lower_precision():
    network = mlp()

    def step():
        with torch.autocast("cpu", torch.bfloat16):
            network(torch.randn(BATCH, 8)).sum().backward()

    layers = {"0.weight": product(6, 8, 2), "2.weight": product(4, 6, 3), "4.weight": product(2, 4, 3)}
    assert counted(network, step=step) == (sum(layers.values()), layers)


def test_products_of_activations_belong_to_no_weight():
    """Attention: four projections, of which one matrix holds three; and two products without a weight."""
    network = nn.MultiheadAttention(8, 2, batch_first=True)

    def step():
        inputs = torch.randn(BATCH, 3, 8, requires_grad=True)
        network(inputs, inputs, inputs, need_weights=True)[0].sum().backward()

    total, layers = counted(network, step=step)
    assert layers == {"in_proj_weight": 3 * product(24, 8, 3), "out_proj.weight": 3 * product(8, 8, 3)}
    assert total > sum(layers.values())


def test_layers_that_are_called_twice_and_tied_weights():
    network = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False))
    network[1].weight = network[0].weight
    _, layers = counted(network, torch.randn(BATCH, 8))
    assert layers == {"0.weight": product(8, 8, 5)}


def test_what_cannot_be_counted():
    assert FlopsOfBatch.can_count(mlp())
    assert not FlopsOfBatch.can_count(nn.Sequential(torch.compile(mlp())))
    network = mlp()
    network.compile()
    assert not FlopsOfBatch.can_count(nn.Sequential(network))


def test_a_fit_records_the_operations_of_every_round(digits):
    """200 images in batches of 32: the first batch counts for all seven, also for the last with 8 images."""
    network = nn.Sequential(nn.Linear(784, 20), nn.ReLU(), nn.Linear(20, 10))
    lottery = LotteryTicketCallback(densities=[0.5, 0.1], verbose=False)
    quiet_trainer(callbacks=[lottery]).fit(Model(network), *loaders(digits))
    first, second = (2 * 32 * 784 * 20 * 2, 2 * 32 * 20 * 10 * 3)
    for record in lottery.records:
        assert record.flops == 14 * (first + second)
        kept = record.kept_by_layer
        sparse = first * kept["network.0.weight"] / 15680 + second * kept["network.2.weight"] / 200
        assert record.sparse_flops == pytest.approx(14 * sparse, abs=1)


def test_compiled_networks_have_unknown_operations(digits):
    network = Net()
    network.convolution.compile(backend="eager")
    lottery = LotteryTicketCallback(densities=[0.5], verbose=False)
    quiet_trainer(callbacks=[lottery]).fit(Model(network), *loaders(digits))
    assert [record.flops for record in lottery.records] == [None, None]
    assert lottery.records.cost().flops is None
