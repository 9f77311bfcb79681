import pytest
import torch
from torch import nn

from lightning_lottery.errors import ConfigurationError
from lightning_lottery.prunable import prunable_parameters, refuse_lazy


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
    }
    found = prunable_parameters(Everything())
    assert set(found) == expected
    assert list(found) == [name for name, _ in Everything().named_parameters() if name in expected]


def test_patterns_add_and_leave_out():
    module = Everything()
    assert "free" in prunable_parameters(module, include=["free"])
    assert "linear.bias" in prunable_parameters(module, include=["linear.*"])
    assert "embedding.weight" in prunable_parameters(module, include=["emb*.weight"])
    assert not [name for name in prunable_parameters(module, exclude=["lstm.*"]) if name.startswith("lstm")]
    assert list(prunable_parameters(module, include=["free"], exclude=["*.*"])) == ["free"]


def test_tied_parameters_are_listed_once_and_embeddings_win():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
            self.second.weight = self.first.weight
            self.head, self.embedding = nn.Linear(4, 9, bias=False), nn.Embedding(9, 4)
            self.embedding.weight = self.head.weight

    assert list(prunable_parameters(Tied())) == ["first.weight"]
    assert list(prunable_parameters(Tied(), include=["head.weight"])) == ["first.weight", "head.weight"]


@pytest.mark.parametrize("argument", ["include", "exclude"])
def test_a_pattern_that_matches_nothing_is_refused_with_the_names(argument):
    with pytest.raises(ConfigurationError, match=rf"{argument}='nothing\*' matches no parameter.*linear.weight"):
        prunable_parameters(Everything(), **{argument: ["nothing*"]})


def test_gains_of_weight_normalisation_are_no_weights_and_parametrized_layers_are_named():
    with pytest.warns(FutureWarning):
        old = nn.utils.weight_norm(nn.Linear(3, 3))
    assert list(prunable_parameters(old)) == ["weight_v"]
    new = nn.Sequential(nn.Linear(3, 3), nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)))
    with pytest.warns(UserWarning, match=r"parametrized weights of '1' are not pruned unless"):
        assert list(prunable_parameters(new)) == ["0.weight"]


def test_nothing_prunable_is_refused():
    with pytest.raises(ConfigurationError, match=r"no prunable parameter.*weight, bias"):
        prunable_parameters(nn.LayerNorm(4))
    with pytest.raises(ConfigurationError, match="no prunable parameter"):
        prunable_parameters(nn.Linear(2, 2), exclude=["*"])


def test_lazy_layers_are_refused_until_they_have_seen_a_batch():
    network = nn.Sequential(nn.LazyLinear(3), nn.LazyBatchNorm1d())
    with pytest.raises(ConfigurationError, match=r"lazy layers of '0.weight'.*'1.running_mean'"):
        refuse_lazy(network)
    network(torch.rand(2, 5))
    refuse_lazy(network)
    assert list(prunable_parameters(network)) == ["0.weight"]
