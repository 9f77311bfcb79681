import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from lightning_lottery.errors import ConfigurationError
from lightning_lottery.pruning.prunable import (
    check_not_lazy,
    check_not_pruned,
    select,
    warn_if_sparse,
    warn_if_unclear,
)


class Everything(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 8)
        self.linear = nn.Linear(8, 8)
        self.convolution = nn.Conv1d(8, 8, 3)
        self.transposed = nn.ConvTranspose2d(2, 2, 2)
        self.norm = nn.LayerNorm((2, 8))
        self.batch_norm = nn.BatchNorm1d(8)
        self.attention = nn.MultiheadAttention(8, 2, add_bias_kv=True)
        self.other_attention = nn.MultiheadAttention(8, 2, kdim=4, vdim=6)
        self.lstm = nn.LSTM(8, 8, num_layers=2, bidirectional=True, proj_size=3)
        self.cell = nn.GRUCell(8, 8)
        self.free = nn.Parameter(torch.rand(4, 4))
        self.position = nn.Parameter(torch.rand(1, 9, 8))
        self.frozen = nn.Linear(3, 3).requires_grad_(False)


def test_weights_of_the_named_layers_and_nothing_else():
    lstm = {
        f"lstm.weight_{kind}_l{layer}{reverse}"
        for kind in ("ih", "hh", "hr")
        for layer in (0, 1)
        for reverse in ("", "_reverse")
    }
    expected = lstm | {
        "linear.weight",
        "convolution.weight",
        "transposed.weight",
        "attention.in_proj_weight",
        "attention.out_proj.weight",
        "other_attention.q_proj_weight",
        "other_attention.k_proj_weight",
        "other_attention.v_proj_weight",
        "other_attention.out_proj.weight",
        "cell.weight_ih",
        "cell.weight_hh",
        "frozen.weight",
        "free",
    }
    found = select(Everything()).parameters
    assert set(found) == expected
    assert list(found) == [name for name, _ in Everything().named_parameters() if name in expected]


def test_patterns_add_and_leave_out():
    module = Everything()
    assert "position" in select(module, include=["position"]).parameters
    assert "linear.bias" in select(module, include=["linear.*"]).parameters
    assert "embedding.weight" in select(module, include=["emb*.weight"]).parameters
    assert not [name for name in select(module, exclude=["lstm.*"]).parameters if name.startswith("lstm")]
    assert list(select(module, exclude=["*.*"]).parameters) == ["free"]


def test_tied_parameters_are_listed_once_and_embeddings_win():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
            self.second.weight = self.first.weight
            self.head, self.embedding = nn.Linear(4, 9, bias=False), nn.Embedding(9, 4)
            self.embedding.weight = self.head.weight

    assert list(select(Tied()).parameters) == ["first.weight"]
    assert list(select(Tied(), include=["head.weight"]).parameters) == ["first.weight", "head.weight"]


@pytest.mark.parametrize("argument", ["include", "exclude"])
def test_a_pattern_that_matches_nothing_is_refused_with_the_names(argument):
    with pytest.raises(ConfigurationError, match=rf"{argument}='nothing\*' matches no parameter.*linear.weight"):
        select(Everything(), **{argument: ["nothing*"]})


def test_normalised_weights_are_pruned_but_not_their_gains():
    with pytest.warns(FutureWarning):
        old = nn.utils.weight_norm(nn.Linear(3, 3))
    assert list(select(old).parameters) == ["weight_v"]
    new = nn.Sequential(nn.Linear(3, 3), nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)))
    assert list(select(new).parameters) == ["0.weight", "1.parametrizations.weight.original1"]
    spectral = nn.utils.parametrizations.spectral_norm(nn.Conv2d(2, 3, 3))
    assert list(select(spectral).parameters) == ["parametrizations.weight.original"]


def test_a_parametrization_that_changes_zeros_is_left_out_and_named():
    network = nn.Sequential(nn.Linear(3, 3), nn.utils.parametrizations.orthogonal(nn.Linear(3, 3)))
    selection = select(network)
    assert list(selection.parameters) == ["0.weight"]
    with pytest.warns(UserWarning, match=r"write include=\['1.parametrizations.weight.original'\]"):
        warn_if_unclear(selection)


def test_frozen_leaves_out_what_is_not_trained():
    network = nn.Sequential(nn.Linear(3, 3).requires_grad_(False), nn.Linear(3, 2))
    assert list(select(network).parameters) == ["0.weight", "1.weight"]
    assert list(select(network, exclude=["frozen"]).parameters) == ["1.weight"]
    with pytest.raises(ConfigurationError, match=r"exclude leaves out '0.weight'"):
        select(network[:1], exclude=["frozen"])


def test_the_line_says_what_is_pruned_what_is_left_out_and_that_frozen_weights_compete():
    network = nn.Sequential(nn.Linear(4, 3).requires_grad_(False), nn.LayerNorm(3), nn.Linear(3, 2))
    assert select(network).line() == (
        "Pruning 18 weights of 2 matrices, 62.1% of 29 parameters. Left out: normalisation 6 (1.weight, 1.bias); "
        "biases, gains and other vectors 5 (0.bias, 2.bias). Frozen weights are pruned too: 12 (0.weight). "
        "exclude=['frozen'] leaves them alone."
    )
    assert select(network, exclude=["frozen", "1.*"]).line() == (
        "Pruning 6 weights of 1 matrix, 20.7% of 29 parameters. Left out: frozen 15 (0.weight, 0.bias); "
        "excluded 6 (1.weight, 1.bias); "
        "biases, gains and other vectors 2 (2.bias)."
    )


def test_complex_weights_are_left_out_and_cannot_be_included():
    network = nn.Linear(3, 3)
    network.spectrum = nn.Parameter(torch.zeros(2, 2, dtype=torch.complex64))
    assert list(select(network).parameters) == ["weight"]
    with pytest.raises(ConfigurationError, match=r"names 'spectrum' of type torch.complex64"):
        select(network, include=["spectrum"])


def test_a_network_that_pytorch_has_pruned_is_refused():
    network = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    prune.l1_unstructured(network[0], "weight", amount=0.8)
    with pytest.raises(
        ConfigurationError, match=r"already pruned.* masks on '0.weight'.*prune.remove\(model.get_submodule"
    ):
        check_not_pruned(network)
    prune.remove(network[0], "weight")
    check_not_pruned(network)
    with pytest.warns(UserWarning, match=r"69\.2% of the prunable weights are exactly zero .*'0.weight'"):
        warn_if_sparse(network, select(network).parameters)


def test_parameters_that_start_at_zero_do_not_count_as_sparse(recwarn):
    network = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    nn.init.zeros_(network[1].weight)
    warn_if_sparse(network, select(network).parameters)
    assert not recwarn.list


def test_the_advice_names_no_normalisation_and_no_embedding():
    network = nn.Sequential(nn.Embedding(4, 4), nn.LayerNorm(4))
    with pytest.raises(ConfigurationError) as error:
        select(network)
    assert "'*.weight'" not in str(error.value)


def test_nothing_prunable_is_refused():
    with pytest.raises(ConfigurationError, match=r"no prunable parameter.*weight, bias"):
        select(nn.LayerNorm(4))
    with pytest.raises(ConfigurationError, match="no prunable parameter"):
        select(nn.Linear(2, 2), exclude=["*"])


def test_lazy_layers_are_refused_until_they_have_seen_a_batch():
    network = nn.Sequential(nn.LazyLinear(3), nn.LazyBatchNorm1d())
    with pytest.raises(ConfigurationError, match=r"lazy layers of '0.weight'.*'1.running_mean'"):
        check_not_lazy(network)
    network(torch.rand(2, 5))
    check_not_lazy(network)
    assert list(select(network).parameters) == ["0.weight"]
