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
    layers = {"0.weight": 2 * first, "2.weight": 3 * second}
    assert counted(network, torch.randn(BATCH, 4, 8, 8)) == (sum(layers.values()), layers)


@pytest.mark.parametrize("groups", [1, 2])
def test_transposed_convolutions(groups):
    network = nn.Sequential(nn.ConvTranspose2d(4, 6, 3, groups=groups))
    layers = {"0.weight": 2 * (2 * BATCH * 4 * 8 * 8 * (6 // groups) * 9)}
    assert counted(network, torch.randn(BATCH, 4, 8, 8)) == (sum(layers.values()), layers)


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


def test_products_of_three_dimensions():
    """One matrix for each of two experts; and einsum, which multiplies in the same way."""
    network = nn.ParameterDict({"experts": torch.randn(2, 8, 4), "mixed": torch.randn(8, 4)})
    inputs = torch.randn(2, BATCH, 8)

    def step():
        (
            torch.bmm(inputs, network["experts"]).sum()
            + torch.einsum("ebi,io->ebo", inputs, network["mixed"]).sum()
        ).backward()

    layers = {"experts": 2 * product(4, 8, 2), "mixed": 2 * product(4, 8, 2)}
    assert counted(network, step=step) == (sum(layers.values()), layers)


def test_a_forward_pass_without_a_backward_pass_has_no_gradients():
    """As of a generator whose output is detached for the step of the discriminator."""
    network = nn.ModuleDict({"generator": nn.Linear(8, 6), "discriminator": nn.Linear(6, 4)})

    def step():
        made = network["generator"](torch.randn(BATCH, 8)).detach()
        network["discriminator"](made).sum().backward()

    layers = {"generator.weight": product(6, 8, 1), "discriminator.weight": product(4, 6, 2)}
    assert counted(network, step=step) == (sum(layers.values()), layers)


def test_gradients_of_gradients():
    """A gradient penalty: what is counted is less than everything, and more than one backward pass."""
    network = mlp()

    def step():
        images = torch.randn(BATCH, 8, requires_grad=True)
        (gradient,) = torch.autograd.grad(network(images).sum(), images, create_graph=True)
        gradient.square().sum().backward()

    total, layers = counted(network, step=step)
    assert 0 < sum(layers.values()) <= total
    assert layers["0.weight"] >= product(6, 8, 2)


def test_fused_recurrent_layers_have_no_formula_on_a_cpu():
    """PyTorch would count the linear layer alone."""
    network = nn.ModuleDict({"lstm": nn.LSTM(8, 6), "head": nn.Linear(6, 4)})
    total, layers = counted(
        network, step=lambda: network["head"](network["lstm"](torch.randn(3, BATCH, 8))[0]).sum().backward()
    )
    assert (total, layers) == (0, {})


def test_what_cannot_be_counted():
    assert FlopsOfBatch.can_count(mlp())
    assert not FlopsOfBatch.can_count(nn.Sequential(torch.compile(mlp())))
    network = mlp()
    network.compile()
    assert not FlopsOfBatch.can_count(nn.Sequential(network))
    model = Model()
    assert FlopsOfBatch.can_count(model)
    model._compiler_ctx = {"compiler": "dynamo"}  # what Lightning keeps of torch.compile(model)
    assert not FlopsOfBatch.can_count(model)


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


class Penalized(Model):
    """With a penalty on the gradient of its input."""

    def training_step(self, batch, batch_idx):
        images, labels = batch
        images.requires_grad_()
        logits = self.network(images)
        (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
        return nn.functional.cross_entropy(logits, labels) + 0.01 * gradient.square().mean()


class Skipping(Model):
    """Skips its first batches, in one of two ways."""

    def __init__(self, batches, by_hook):
        super().__init__(nn.Linear(784, 10))
        self.batches, self.by_hook = batches, by_hook

    def is_skipped(self, batch_idx):
        return self.trainer.current_epoch == 0 and batch_idx < self.batches

    def on_train_batch_start(self, batch, batch_idx):
        return -1 if self.by_hook and self.is_skipped(batch_idx) else None

    def training_step(self, batch, batch_idx):
        return None if not self.by_hook and self.is_skipped(batch_idx) else super().training_step(batch, batch_idx)


def modes():
    return len(torch.utils._python_dispatch._get_current_dispatch_mode_stack())


def test_gradient_penalties_train(digits):
    lottery = LotteryTicketCallback(densities=[0.5], verbose=False)
    quiet_trainer(callbacks=[lottery]).fit(Penalized(), *loaders(digits))
    assert all(0 < record.sparse_flops <= record.flops for record in lottery.records)


@pytest.mark.parametrize(("batches", "by_hook"), [(1, True), (2, False), (0, False)])
def test_the_first_batch_that_trains_is_counted(digits, batches, by_hook):
    lottery = LotteryTicketCallback(densities=[0.5], verbose=False)
    quiet_trainer(callbacks=[lottery]).fit(Skipping(batches, by_hook), *loaders(digits))
    of_a_batch = 2 * 32 * 784 * 10 * 2
    trained = lottery.records[1].flops // of_a_batch
    assert [record.flops for record in lottery.records] == [trained * of_a_batch] * 2
    assert lottery.records[1].sparse_flops == lottery.records[1].flops // 2
    assert modes() == 0


def test_batches_that_never_train_have_unknown_operations(digits):
    model = Model(nn.Linear(784, 10))
    loss = torch.tensor(0.0, requires_grad=True)
    model.training_step = lambda batch, batch_idx: loss * 1
    lottery = LotteryTicketCallback(densities=[0.5], verbose=False)
    quiet_trainer(callbacks=[lottery]).fit(model, *loaders(digits))
    assert lottery.records[0].flops is None


def test_an_error_in_the_first_batch_ends_the_counting(digits):
    model = Model()

    def fail(batch, batch_idx):
        raise ZeroDivisionError

    model.training_step = fail
    lottery = LotteryTicketCallback(densities=[0.5], verbose=False)
    with pytest.raises(ZeroDivisionError):
        quiet_trainer(callbacks=[lottery]).fit(model, *loaders(digits))
    assert modes() == 0
