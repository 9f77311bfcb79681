"""The report at the end of a fit."""

import json
import sys

import pytest
import torch

from lightning_lottery import LotteryTicketCallback, ShuffleMask
from lightning_lottery.preflight.identity import command_line
from lightning_lottery.storage import RunFolder
from lightning_lottery.storage.names import FILES
from tests.helpers.fits import Model, Net, loaders, quiet_trainer

pytestmark = pytest.mark.usefixtures("reports")


def fit(digits, model=None, batch=lambda images: images, **options):
    images, labels = digits
    lottery = LotteryTicketCallback(rounds=2, amount=0.5, dirpath="run", **options)
    trainer = quiet_trainer(callbacks=[lottery], max_epochs=1)
    trainer.fit(model or Model(), *loaders((batch(images), labels)))
    return lottery


def test_a_fit_writes_its_report_and_says_where(digits, tmp_path, capsys):
    options = {"monitor": "val_acc", "mode": "max", "controls": [ShuffleMask()]}
    lottery = fit(digits, **options)
    page = tmp_path / "run" / "report.html"
    assert f"Report: {page.relative_to(tmp_path)}" in capsys.readouterr().out
    text = page.read_text()
    assert f"{lottery.records[0].best_value:.4f}"[:4] in text
    assert "5 trainings, finished" in text
    written = {path.name for path in (tmp_path / "run").glob("report*")}
    assert {"report.html", "report.png", "report_layers.png", "report_learning_curves.png"} <= written
    assert written <= set(FILES), "so that overwrite=True removes them"
    RunFolder(tmp_path / "run").clear()
    assert not list((tmp_path / "run").glob("report*"))


def test_without_a_metric_there_are_still_layers_and_costs(digits, tmp_path):
    fit(digits, verbose=False)
    text = (tmp_path / "run" / "report.html").read_text()
    assert "Nothing was monitored" in text
    assert "Cost, in trainings of round 0" in text
    assert not (tmp_path / "run" / "report.png").exists()


@pytest.mark.parametrize(
    ("network", "batch", "shape", "is_image"),
    [
        (lambda: Net(), lambda images: images.view(-1, 1, 28, 28), [1, 28, 28], True),
        (
            lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10)),
            lambda images: images.view(-1, 28, 28),
            [28, 28],
            True,
        ),
        (lambda: torch.nn.Linear(784, 10), lambda images: images, [784], False),
    ],
)
def test_the_first_layer_is_drawn_if_the_inputs_are_images(digits, tmp_path, network, batch, shape, is_image):
    fit(digits, Model(network()), batch, verbose=False)
    assert json.loads((tmp_path / "run" / "lottery.json").read_text())["input_shape"] == shape
    assert (tmp_path / "run" / "report_first_layer.png").exists() == is_image


def test_fast_dev_run_writes_no_report(digits, tmp_path):
    lottery = LotteryTicketCallback(rounds=2, amount=0.5, verbose=False)
    quiet_trainer(callbacks=[lottery], fast_dev_run=True).fit(Model(), *loaders(digits))
    assert not list(tmp_path.rglob("report*"))


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["/usr/bin/python", "train.py", "--lr", "0.1"], "python train.py --lr 0.1"),
        (
            ["/env/bin/python", "/env/bin/lightning-lottery", "fit", "--name", "a b"],
            "lightning-lottery fit --name 'a b'",
        ),
        (["/usr/bin/python", "-m", "lightning_lottery", "fit"], "python -m lightning_lottery fit"),
        (["/usr/bin/python", "-c", "import this"], ""),
        (["/usr/bin/python", "-m", "ipykernel_launcher", "-f", "kernel.json"], ""),
        (["/usr/bin/python"], ""),
        (["/usr/bin/python", "train.py", "-c", "exp.yaml"], "python train.py -c exp.yaml"),
        (["/usr/bin/python", "-X", "dev", "-u", "train.py"], "python train.py"),
        (["/usr/bin/python", "-X", "dev", "-c", "import this"], ""),
        (["/usr/bin/python", "-"], ""),
        (["/usr/bin/python", "/opt/colab_kernel_launcher.py", "-f", "kernel.json"], ""),
    ],
)
def test_the_command_is_as_it_would_be_typed(monkeypatch, words, command):
    monkeypatch.setattr(sys, "orig_argv", words)
    assert command_line() == command
