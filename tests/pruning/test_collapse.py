"""Layer collapse of VGG-16, pruned at initialisation by magnitude (Tanaka et al. 2020, arXiv:2006.05467).

Nothing is trained here.
"""

from types import SimpleNamespace

import pytest
import torch

from lightning_lottery import Context, Global, Magnitude, SynFlow, Unstructured
from lightning_lottery.pruning.layers import layers_of
from lightning_lottery.pruning.method import Method
from lightning_lottery.vision import CifarVGG

DENSITY = 0.003


def pruned(criterion, scope, init):
    """VGG-16 after pruning at initialisation, and the number of weights that each layer keeps."""
    network = CifarVGG(16, init=init)
    parameters = {name: p for name, p in network.named_parameters() if p.dim() > 1}
    weights = {name: p.detach() for name, p in parameters.items()}
    masks = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
    total = round(DENSITY * sum(mask.numel() for mask in masks.values()))
    pruner = Method(criterion, scope, Unstructured()).one_pruning(layers_of(network, parameters), masks, total)
    data = SimpleNamespace(ones=lambda: torch.ones(1, 3, 32, 32))
    masks, _ = pruner.masks(1, masks, lambda masks: Context(weights, weights, masks, network, data, 0))
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.mul_(masks[name])
    return network, [int(mask.sum()) for mask in masks.values()]


def sees(network):
    """Whether the output depends on the image."""
    with torch.no_grad():
        return bool(network.train()(torch.rand(8, 3, 32, 32)).std(0).any())


def test_layers_become_empty_without_keep_alive_and_keep_one_weight_with_it():
    """PyTorch draws from a uniform distribution, whose largest values are small in wide layers."""
    network, kept = pruned(Magnitude(), Global(keep_alive=False), "default")
    assert kept.count(0) == 8
    assert not sees(network)
    _, kept = pruned(Magnitude(), Global(), "default")
    assert kept.count(1) == 8
    assert min(kept) == 1


@pytest.mark.parametrize("init", ["default", "he_normal"])
@pytest.mark.parametrize("keep_alive", [True, False])
def test_keep_alive_keeps_layers_but_not_the_paths_between_them(keep_alive, init):
    """Of a normal distribution, every layer keeps about 100 weights: still too few to meet those of the next."""
    network, kept = pruned(Magnitude(), Global(keep_alive=keep_alive), init)
    assert min(kept) > 0 or not keep_alive
    assert not sees(network)


@pytest.mark.parametrize("init", ["default", "he_normal"])
def test_a_least_density_per_layer_keeps_paths(init):
    network, _ = pruned(Magnitude(), Global(min_density=0.001), init)
    assert sees(network)


def test_synflow_keeps_paths_by_itself():
    network, kept = pruned(SynFlow(steps=20), Global(keep_alive=False), "he_normal")
    assert min(kept) > 0
    assert sees(network)
