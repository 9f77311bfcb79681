"""The networks of the papers, against the papers' own counts."""

import math
import warnings

import pytest
import torch
from torch import nn
from torchvision import models

from lightning_lottery import ConfigurationError, Reinitialize, Ticket
from lightning_lottery.vision import (
    MLP,
    CifarResNet,
    CifarVGG,
    CifarViT,
    Conv2,
    Conv4,
    Conv6,
    LeNet300100,
    WideResNet,
)


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def weights(network, kind):
    return sum(layer.weight.numel() for layer in network.modules() if isinstance(layer, kind))


@pytest.mark.parametrize(
    ("network", "parameters"),
    [
        (LeNet300100, 266_610),  # these four: Zhou et al. 2019
        (Conv2, 4_301_642),
        (Conv4, 2_425_930),
        (Conv6, 2_262_602),
        (models.resnet18, 11_689_512),  # torchvision's documentation
        (models.resnet50, 25_557_032),
        (lambda: CifarViT(224, 16, 12, classes=1000), 5_717_416),  # DeiT-Ti, 5.7 million
    ],
)
def test_parameter_counts_are_the_published_ones(network, parameters):
    assert count(network()) == parameters


@pytest.mark.parametrize(
    ("network", "millions"),
    [
        # He et al. 2016, table 6, whose shortcuts have no parameters.
        *((lambda depth=depth: CifarResNet(depth, shortcut="padding"), m) for depth, m in
          ((20, 0.27), (32, 0.46), (56, 0.85), (110, 1.7))),
        # Zagoruyko & Komodakis 2016, table 4.
        *((lambda sizes=sizes: WideResNet(*sizes), m) for sizes, m in
          (((40, 1), 0.6), ((40, 4), 8.9), ((16, 8), 11.0), ((28, 10), 36.5))),
        # Frankle & Carbin 2018, figure 2; Renda et al. 2020, table 1; both without hidden linear layers.
        (lambda: CifarVGG(19), 20.0),
        (lambda: CifarVGG(16), 14.7),
        (lambda: CifarVGG(11), 9.2),
    ],
)  # fmt: skip
def test_parameter_counts_round_to_the_published_ones(network, millions):
    with torch.device("meta"):
        made = network()
    digits = len(str(millions).split(".")[1])
    assert round(count(made) / 1e6, digits) == millions


def test_the_counts_of_frankle_and_carbin():
    """Figure 2 of arXiv:1803.03635: weights of convolutions, and of all layers."""
    for network, convolutions, everything in ((Conv2, 38_592, 4.3e6), (Conv4, 259_776, 2.4e6)):  # 38K and 260K
        made = network()
        assert weights(made, nn.Conv2d) == convolutions
        assert float(f"{weights(made, (nn.Conv2d, nn.Linear)):.2g}") == everything
    assert float(f"{weights(Conv6(), nn.Conv2d):.2g}") == 1.1e6  # its total of 1.7 million has 0.6 too few
    # With projections, and with the statistics of batch normalisation, ResNet-20 has the 274,000 of that figure.
    resnet = CifarResNet(20)
    statistics = [b for name, b in resnet.named_buffers() if not name.endswith("num_batches_tracked")]
    assert count(resnet) + sum(buffer.numel() for buffer in statistics) == 274_042


@pytest.mark.parametrize(
    ("network", "channels"),
    [
        *((make, 3) for make in (Conv2, Conv4, Conv6, CifarResNet, CifarVGG, CifarViT)),
        (lambda: WideResNet(10, 2), 3),
        (lambda: CifarResNet(8, channels=1, shortcut="padding", norm_init="uniform"), 1),
        (lambda: CifarVGG(11, channels=1), 1),
    ],
)
def test_networks_classify_images_and_all_weights_get_gradients(network, channels):
    made = network()
    logits = made(torch.rand(3, channels, 32, 32))
    assert logits.shape == (3, 10)
    logits.square().sum().backward()
    zero = [name for name, parameter in made.named_parameters() if parameter.grad is None]
    assert not zero


def test_networks_take_the_images_of_mnist():
    images = torch.rand(2, 1, 28, 28)
    for made in (CifarResNet(8, channels=1), CifarVGG(11, channels=1), Conv2(1, size=28), Conv4(1, size=28)):
        assert made(images).shape == (2, 10)
    assert Conv2(1, classes=3, size=28)(images).shape == (2, 3)


def test_depths_are_the_numbers_of_layers():
    for depth in (20, 32):
        layers = [layer for layer in CifarResNet(depth).modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
        assert len(layers) == depth + 2  # and two projections
    kinds = (nn.Conv2d, nn.Linear)
    assert (
        len([layer for layer in CifarVGG(16).modules() if isinstance(layer, kinds)]) == 14
    )  # VGG has three linear
    # Those of WRN count convolutions, with the projections.
    assert len([layer for layer in WideResNet(16, 2).modules() if isinstance(layer, nn.Conv2d)]) == 16


def test_option_a_has_shortcuts_without_parameters():
    made = CifarResNet(8, shortcut="padding")
    assert not list(made.blocks[1].shortcut.parameters())
    features = torch.rand(2, 16, 8, 8)
    shortcut = made.blocks[1].shortcut(features)
    assert torch.equal(shortcut[:, 8:24], features[:, :, ::2, ::2])
    assert not shortcut[:, :8].any()
    assert not shortcut[:, 24:].any()


def fans(weight):
    field = math.prod(weight.shape[2:])
    return weight.shape[1] * field, weight.shape[0] * field


@pytest.mark.parametrize("network", [LeNet300100, Conv4, CifarResNet, lambda init: CifarVGG(11, init=init)])
@pytest.mark.parametrize("init", ["glorot_normal", "he_normal"])
def test_weights_are_drawn_as_in_the_papers(network, init):
    made = network(init=init)
    layers = [layer for layer in made.modules() if isinstance(layer, (nn.Linear, nn.Conv2d))]
    for layer in layers:
        fan_in, fan_out = fans(layer.weight)
        expected = 2 / (fan_in + fan_out) if init == "glorot_normal" else 2 / fan_in
        drawn = layer.weight.detach().double().flatten() / math.sqrt(expected)
        tolerance = 5 / math.sqrt(len(drawn))  # five standard errors
        assert abs(drawn.mean()) < tolerance
        assert abs(drawn.square().mean() - 1) < math.sqrt(2) * tolerance
        # A normal distribution has 31.7 % beyond one standard deviation, a uniform one 42.3 %.
        assert abs((drawn.abs() > 1).double().mean() - 0.317) < max(tolerance, 0.01)
        assert layer.bias is None or not layer.bias.any()


def test_scales_of_batch_normalisation():
    norms = [
        layer for layer in CifarResNet(20, norm_init="uniform").modules() if isinstance(layer, nn.BatchNorm2d)
    ]
    scales = torch.cat([norm.weight for norm in norms]).detach()
    assert 0 <= scales.min() < 0.05
    assert 0.95 < scales.max() <= 1
    assert abs(float(scales.mean()) - 0.5) < 0.05
    assert not any(norm.bias.any() for norm in norms)
    assert all((norm.weight == 1).all() for norm in CifarResNet().modules() if isinstance(norm, nn.BatchNorm2d))


@pytest.mark.parametrize(
    "network",
    [
        lambda: LeNet300100("glorot_normal"),
        lambda: MLP(),
        lambda: Conv4(),
        lambda: CifarResNet(8, norm_init="uniform"),
        lambda: CifarVGG(11, init="glorot_normal"),
        lambda: WideResNet(10, 1),
    ],
)
def test_reinitialisation_draws_from_the_same_distribution(network):
    """The control would warn otherwise, and use the initial values in another order."""
    made = nn.Sequential(network())  # inside a LightningModule, it is one layer among others
    masks = {name: p != torch.inf for name, p in made.named_parameters() if p.dim() > 1}
    dense = Ticket(masks, {name: value.clone() for name, value in made.state_dict().items()})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Reinitialize().check(dense, made)
    fresh = Reinitialize().ticket(dense, dense, made, seed=1).weights
    for name in masks:
        same = (fresh[name] == dense.weights[name]).double().mean()
        assert same < 0.01
        ratio = float(fresh[name].double().std() / dense.weights[name].double().std())
        assert abs(ratio - 1) < 6 / math.sqrt(fresh[name].numel())


def test_invalid_arguments():
    for make, message in (
        (lambda: CifarResNet(18), r"depth=18 is not 2 plus a multiple of 6.*depth=20"),
        (lambda: WideResNet(4), r"depth=4 is not 4 plus a multiple of 6.*depth=16"),
        (lambda: CifarVGG(12), r"depth=12 must be one of 11, 13, 16, 19"),
        (
            lambda: CifarResNet(init="xavier"),
            r"init='xavier' must be one of 'default', 'glorot_normal', 'he_normal'",
        ),
        (lambda: CifarResNet(norm_init="zeros"), r"norm_init='zeros' must be one of 'ones', 'uniform'"),
        (lambda: CifarResNet(shortcut="A"), r"shortcut='A' must be one of 'projection', 'padding'"),
        (lambda: Conv6(size=28), r"size=28 must be a multiple of 8"),
        (lambda: Conv2(channels=0), r"channels=0 must be an integer of at least 1"),
        (lambda: CifarResNet("20"), r"depth='20' must be an integer of at least 1"),
        (lambda: CifarResNet(width=0), r"width=0 must be an integer of at least 1"),
        (lambda: WideResNet(16, 0), r"widen=0 must be an integer of at least 1"),
        (lambda: WideResNet(dropout=1.0), r"dropout=1.0 must be a number from 0 to below 1"),
        (lambda: CifarVGG(classes=0), r"classes=0 must be an integer of at least 1"),
        (lambda: CifarViT(size=30), r"patch=4 is not a divisor of size=30"),
        (lambda: CifarViT(heads=5), r"heads=5 is not a divisor of width=192"),
        (lambda: MLP([4]), r"sizes=\[4\]"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            make()
