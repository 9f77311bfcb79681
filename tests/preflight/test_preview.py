"""Previews, compared with numbers counted by hand."""

import copy

import pytest
from torch import nn

from lightning_lottery import ConfigurationError, Layerwise, LotteryTicketCallback, Random
from tests.helpers.fits import Model, loaders, quiet_trainer, same_bits


def network():
    return nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 2))


def test_the_table(capsys):
    preview = LotteryTicketCallback(rounds=2, amount=0.5).preview(network())
    assert preview.layers == {"1.weight": (8, 4), "3.weight": (2, 8)}
    assert preview.kept == {("1.weight", "3.weight"): (48, 24, 12)}
    assert set(preview.left_out) == {"0.weight", "1.bias", "2.weight", "2.bias", "3.bias"}
    assert capsys.readouterr().out.splitlines() == [
        "pruned    shape  weights",
        "------------------------",
        "1.weight  8 x 4       32",
        "3.weight  2 x 8       16",
        "",
        "round  kept  density",
        "--------------------",
        "    0    48   1.0000",
        "    1    24   0.5000",
        "    2    12   0.2500",
        "",
        "left out                         weights  parameters",
        "----------------------------------------------------",
        "embeddings                            20  0.weight",
        "normalisation                         16  2.weight, 2.bias",
        "biases, gains and other vectors       10  1.bias, 3.bias",
        "",
        "Pruning 48 weights of 2 matrices, 51.1% of 94 parameters. Left out: embeddings 20 (0.weight); "
        "normalisation 16 (2.weight, 2.bias); biases, gains and other vectors 10 (1.bias, 3.bias).",
    ]


def test_separate_pools_have_one_row_each_and_untrained_rounds_have_none(capsys):
    lottery = LotteryTicketCallback(
        densities=[0.5, 0.25], scope=Layerwise(), criterion=Random(), prune_at_init=True
    )
    lottery.preview(network())
    lines = capsys.readouterr().out.splitlines()
    assert lines[5:10] == [
        "kept in round   1   2",
        "---------------------",
        "1.weight       16   8",
        "3.weight        8   4",
        "total          24  12",
    ]


def test_what_a_preview_promises_is_what_a_run_keeps_and_nothing_is_changed(digits):
    model = Model()
    before = copy.deepcopy(model.state_dict())
    lottery = LotteryTicketCallback(rounds=2, amount=0.3, verbose=False)
    (kept,) = lottery.preview(model).kept.values()
    same_bits(before, model.state_dict())
    quiet_trainer(callbacks=[lottery], max_epochs=1).fit(model, *loaders(digits))
    assert list(kept) == [record.kept for record in lottery.records]


def test_it_warns_as_a_run_does():
    odd = nn.Sequential(nn.Linear(4, 4), nn.utils.parametrizations.orthogonal(nn.Linear(4, 4)))
    with pytest.warns(UserWarning, match=r"Not pruned: '1.parametrizations.*include="):
        LotteryTicketCallback(rounds=1, amount=0.5).preview(odd)
    sparse = nn.Linear(4, 4)
    sparse.weight.data[:3] = 0
    with pytest.warns(UserWarning, match="75.0% of the prunable weights are exactly zero"):
        LotteryTicketCallback(rounds=1, amount=0.5).preview(sparse)


def test_anything_but_a_network_is_refused():
    with pytest.raises(ConfigurationError, match=r"needs a network \(a torch\.nn\.Module\), but got 'resnet18'"):
        LotteryTicketCallback(rounds=1, amount=0.5).preview("resnet18")
