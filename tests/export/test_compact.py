"""Compact networks: equal outputs, smaller layers."""

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import seed_everything
from torch import nn

from lightning_lottery import (
    ConfigurationError,
    CoupledChannels,
    ExportError,
    LotteryTicketCallback,
    Ticket,
    TicketError,
)
from lightning_lottery.channels import find_coupling
from lightning_lottery.export import compact
from lightning_lottery.vision import LeNet300100
from tests.helpers.channels import GROUPS, Residual, moved
from tests.helpers.fits import Model, loaders, quiet_trainer, same_bits


def half(network, example, fraction=0.5):
    """A ticket without the first half of the channels of every group, with all that depends on them."""
    masks = {name: torch.ones_like(p, dtype=torch.bool) for name, p in network.named_parameters() if p.dim() > 1}
    following = []
    for group in find_coupling(network, example).groups:
        removed = torch.arange(group.units) < fraction * group.units
        for member in group.producers:
            for name, dim in member.tensors.items():
                following += [] if name in masks else [name]
                mask = masks.setdefault(name, torch.ones_like(network.get_parameter(name), dtype=torch.bool))
                mask.movedim(dim, 0)[member.of_channels(removed)] = False
    return Ticket(masks, dict(network.state_dict()), following=following)


def masked(network, ticket):
    """The outputs of a network with masked weights, computed without the package."""
    values = {n: t * ticket.masks[n] if n in ticket.masks else t for n, t in network.state_dict().items()}
    return lambda images: torch.func.functional_call(network, values, images)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("resnet18", 3_055_880),
        ("mobilenet_v2", 1_221_768),
        ("densenet121", 2_274_728),
        ("efficientnet_b0", None),
        ("googlenet", None),
        ("convnext_tiny", None),
    ],
)
def test_networks_of_torchvision(name, parameters):
    torch.manual_seed(0)
    options = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
    network = moved(getattr(torchvision.models, name)(weights=None, **options))
    for layer in network.modules():  # values of usual size, so that no layer saturates
        if hasattr(layer, "reset_parameters") and isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.reset_parameters()
    images = torch.rand(3, 3, 64, 64)
    ticket = half(network, images)
    small = compact(network, ticket, images)
    expected, found = masked(network, ticket)(images), small(images)
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-5
    size = sum(p.numel() for p in small.parameters())
    assert size == parameters if parameters else size < 0.6 * sum(p.numel() for p in network.parameters())
    assert [type(layer) for layer in small.modules()] == [type(layer) for layer in network.modules()]
    assert not small.training


def vit():
    return torchvision.models.VisionTransformer(
        image_size=16, patch_size=4, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=12, num_classes=3
    )


def swin():
    return torchvision.models.SwinTransformer(
        [4, 4], embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=[2, 2], num_classes=3
    )


@pytest.mark.parametrize(("make", "groups"), [(vit, 2), (swin, 2)])
def test_the_hidden_layers_of_transformers(make, groups):
    """Torch-Pruning's own search for groups does not end on Swin."""
    torch.manual_seed(0)
    network, images = make().eval(), torch.rand(3, 3, 16, 16)
    coupling = find_coupling(network, images)
    assert len(coupling.groups) == groups
    assert all("mlp" in group.name for group in coupling.groups)
    ticket = half(network, images)
    small = compact(network, ticket, images)
    assert torch.allclose(small(images), masked(network, ticket)(images), atol=1e-6)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in network.parameters())


def test_a_search_ends_in_a_smaller_lightning_module(digits):
    seed_everything(1, verbose=False)
    model = Model(Residual())
    lottery = LotteryTicketCallback(densities=[0.7, 0.4], pattern=CoupledChannels(), verbose=False)
    quiet_trainer(callbacks=[lottery]).fit(model, *loaders(digits))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    small = compact(model, lottery.tickets[2], digits[0][:50])
    assert type(small) is Model
    model.eval()
    images = digits[0][50:200]  # other images than those of the comparison
    assert torch.allclose(small(images), model(images), atol=1e-5)
    for name, (_, names) in GROUPS.items():
        kept = int(lottery.tickets[2].masks[f"network.{name}"].flatten(1).any(1).sum())
        assert len(small.get_parameter(f"network.{names[0]}")) == kept
    assert same_bits(before, model.state_dict())
    assert model.trainer is not None
    with pytest.raises(RuntimeError, match="not attached to a `Trainer`"):
        _ = small.trainer
    quiet_trainer().fit(small, *loaders(digits))  # an ordinary network, which can be trained on


def reachable(layers):
    """By hand: the neurons that some input reaches and that some output uses, for matrices (outputs, inputs)."""
    forward = [set(range(layers[0].shape[1]))]
    for matrix in layers:
        forward.append({row for row in range(len(matrix)) if any(matrix[row, i] for i in forward[-1])})
    backward = [set(range(len(layers[-1])))]
    for matrix in reversed(layers):
        backward.append({i for i in range(matrix.shape[1]) if any(matrix[row, i] for row in backward[-1])})
    return [a & b for a, b in zip(forward[1:-1], backward[::-1][1:-1], strict=True)]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), density=st.floats(0.05, 0.5), bias=st.booleans())
def test_neurons_without_inputs_or_uses_are_removed(seed, density, bias):
    """Exactly those that no path connects with inputs and outputs; constants become part of biases."""
    generator = torch.Generator().manual_seed(seed)
    layers = [nn.Linear(6, 9, bias), nn.ReLU(), nn.Linear(9, 8, bias), nn.Tanh(), nn.Linear(8, 3)]
    network = moved(nn.Sequential(*layers), seed)
    masks = {
        f"{place}.weight": torch.rand(layers[place].weight.shape, generator=generator) < density
        for place in (0, 2, 4)
    }
    ticket = Ticket(masks, dict(network.state_dict()))
    inputs = torch.randn(5, 6, generator=generator)
    small = compact(network, ticket, inputs)
    assert torch.allclose(small(inputs), masked(network, ticket)(inputs), atol=1e-5)
    alive = reachable([mask.numpy() for mask in masks.values()])
    # At least one neuron of a layer stays. A layer without biases cannot take constants, but then there are none.
    assert [len(small[0].weight), len(small[2].weight)] == [max(1, len(units)) for units in alive]


def test_an_unstructured_ticket_of_lenet(digits):
    model = Model(LeNet300100())
    lottery = LotteryTicketCallback(densities=[0.005], verbose=False)
    quiet_trainer(callbacks=[lottery]).fit(model, *loaders(digits))
    small = compact(model, lottery.tickets[1], digits[0][:20])
    sizes = [len(p) for name, p in small.named_parameters() if name.endswith("weight")]
    matrices = [mask.numpy() for mask in lottery.tickets[1].masks.values()]
    assert sizes == [*(len(units) for units in reachable(matrices)), 10]
    assert sizes[0] < 250
    assert torch.allclose(small(digits[0]), model.eval()(digits[0]), atol=1e-5)


def test_a_dense_ticket_leaves_the_network_as_it_is():
    network = moved(Residual())
    ticket = half(network, torch.rand(2, 1, 28, 28), fraction=0)
    assert same_bits(compact(network, ticket, torch.rand(2, 1, 28, 28)).state_dict(), network.state_dict())


def test_channels_that_something_else_uses_stay():
    """Nothing multiplies by the channels, but their sum is an output of the network."""

    class Sums(nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden, self.output = nn.Linear(6, 8), nn.Linear(8, 2)

        def forward(self, features):
            hidden = self.hidden(features).relu()
            return self.output(hidden) + hidden.detach().sum(1, keepdim=True)

    network, inputs = moved(Sums()), torch.randn(5, 6)
    masks = {"hidden.weight": torch.ones(8, 6).bool(), "output.weight": torch.ones(2, 8).bool()}
    masks["output.weight"][:, 3] = False  # not used by the layer
    masks["hidden.weight"][5], masks["hidden.bias"] = False, torch.arange(8) != 5  # zero
    ticket = Ticket(masks, dict(network.state_dict()))
    small = compact(network, ticket, inputs)
    assert len(small.hidden.weight) == 7
    assert torch.allclose(small(inputs), masked(network, ticket)(inputs), atol=1e-5)


def test_a_layer_of_which_nothing_is_left_keeps_one_channel():
    network = moved(Residual())
    ticket = half(network, torch.rand(2, 1, 28, 28), fraction=1)
    images = torch.rand(4, 1, 28, 28)
    small = compact(network, ticket, images)
    assert small.stem.weight.shape == (1, 1, 5, 5)
    assert torch.allclose(small(images), masked(network, ticket)(images), atol=1e-6)


def test_half_precision():
    network = moved(Residual()).bfloat16()
    images = torch.rand(4, 1, 28, 28, dtype=torch.bfloat16)
    small = compact(network, half(network, images), images)
    assert {p.dtype for p in small.parameters()} == {torch.bfloat16}
    assert small.stem.weight.shape == (3, 1, 5, 5)


def test_a_path_and_arguments_by_name(tmp_path):
    network = moved(Residual())
    images = torch.rand(4, 1, 28, 28)
    half(network, images).save(tmp_path / "ticket.safetensors")
    small = compact(network, tmp_path / "ticket.safetensors", {"images": images})
    assert small.stem.weight.shape == (3, 1, 5, 5)


def test_a_difference_is_refused(monkeypatch):
    class Drifts(Residual):
        """Depends on its number of channels, but only with the weights that it has now."""

        def __init__(self):
            super().__init__()
            self.register_buffer("as_trained", torch.zeros(10))

        def forward(self, images):
            is_trained = torch.equal(self.output.bias, self.as_trained)
            return super().forward(images) * (1 + 1e-4 * (is_trained and len(self.stem.weight) == 3))

    network = moved(Drifts())
    network.as_trained.copy_(network.output.bias.detach())
    images = torch.rand(4, 1, 28, 28)
    with pytest.raises(ExportError, match=r"differ from those of the masked one by 0.0001 .* nothing is exported"):
        compact(network, half(network, images), images)


def test_bad_input_is_refused(tmp_path):
    network = moved(Residual())
    images = torch.rand(4, 1, 28, 28)
    ticket = half(network, images)
    with pytest.raises(TicketError, match="does not fit the network"):
        compact(LeNet300100(), ticket, images)
    with pytest.raises(ConfigurationError, match=r"Calling Residual on an example .* \(2, 3\) failed"):
        compact(network, ticket, torch.rand(2, 3))
    with pytest.raises(ConfigurationError, match="contains no tensor"):
        compact(network, ticket, None)
    with pytest.raises(ConfigurationError, match="ticket=3 is neither a Ticket nor a path"):
        compact(network, 3, images)
    with pytest.raises(TicketError, match=r"A network .* is needed"):
        compact("network", ticket, images)
    (tmp_path / "other.txt").write_text("no ticket")
    with pytest.raises(TicketError, match="is not a ticket file"):
        compact(network, tmp_path / "other.txt", images)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["module", "network"])
def test_compiled_networks(digits, part):
    model = Model(Residual())
    if part == "network":
        model.network = torch.compile(model.network, backend="eager")
    lottery = LotteryTicketCallback(densities=[0.5], pattern=CoupledChannels(), verbose=False)
    fitted = torch.compile(model, backend="eager") if part == "module" else model
    quiet_trainer(callbacks=[lottery], max_epochs=1).fit(fitted, *loaders(digits))
    small = compact(model, lottery.tickets[1], digits[0][:20])
    sizes = [sum(p.numel() for p in network.parameters()) for network in (small, model)]
    assert sizes[0] < 0.5 * sizes[1]
    assert torch.allclose(small(digits[0]), model.eval()(digits[0]), atol=1e-5)


def test_what_is_constant_only_in_the_example_stays():
    """No input reaches the third neuron, but its output is multiplied by a number that differs between samples."""

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden, self.output = nn.Linear(6, 8), nn.Linear(8, 2)

        def forward(self, features):
            return self.output(self.hidden(features).relu() * features.detach().mean(1, keepdim=True))

    network = moved(Scaled())
    masks = {"hidden.weight": torch.ones(8, 6).bool(), "output.weight": torch.ones(2, 8).bool()}
    masks["hidden.weight"][3] = False
    network.hidden.bias.data[3] = 2.0
    ticket = Ticket(masks, dict(network.state_dict()))
    small, inputs = compact(network, ticket, torch.ones(1, 6)), torch.randn(5, 6)
    assert len(small.hidden.weight) == 8
    assert torch.allclose(small(inputs), masked(network, ticket)(inputs), atol=1e-5)
