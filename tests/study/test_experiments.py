"""Which runs are one experiment, and what a report of several says about their differences."""

import shutil
from pathlib import Path

import pytest

from lightning_lottery import ConfigurationError, Study
from lightning_lottery.study import experiments
from tests.helpers.short_run import begin, write
from tests.helpers.written_runs import write_runs


def runs(path, seeds, amount=0.5, **description):
    write_runs()
    lines = Path("exp/seed_0/rounds.jsonl").read_text()
    for seed in seeds:
        folder = Path(path) / f"seed_{seed}"
        begin(folder, seed, 3, arguments={"monitor": "val_acc", "mode": "max", "amount": amount}, **description)
        write(folder / "rounds.jsonl", lines)
    shutil.rmtree("exp")


def shown(*paths, **options):
    return [(one.name, list(one.runs)) for one in experiments(paths, **options)]


def test_runs_that_differ_only_in_their_seeds_are_one_experiment():
    runs("runs/a", [0, 1])
    runs("runs/b", [0, 1], amount=0.2)
    assert shown("runs/a") == [("a", [0, 1])]
    assert shown("runs/a/seed_1", "runs/a/seed_0") == [("a", [0, 1])]
    assert shown("runs/a/seed_1") == [("a/seed_1", [1])]
    assert shown("runs/b", "runs/a") == [("b", [0, 1]), ("a", [0, 1])]
    assert shown("runs") == [("a", [0, 1]), ("b", [0, 1])]
    assert shown("runs", "runs/a") == [("a", [0, 1]), ("b", [0, 1])], "every run once"


def test_the_differences_of_experiments_are_named():
    runs("a", [0])
    runs("b", [0], amount=0.2)
    first, second = experiments(["a", "b"])
    assert first.differs == {"amount": "0.5"}
    assert second.differs == {"amount": "0.2"}
    runs("c", [0], prunable={"weight": [3, 4]})
    first, second = experiments(["a", "c"])
    assert second.differs == {"prunable weights": "12"}


def test_equal_runs_with_the_same_seed_are_compared_rather_than_refused():
    runs("first", [0, 1])
    runs("again", [0, 1])
    assert shown("first", "again") == [("first", [0, 1]), ("again", [0, 1])]
    runs("x/same", [0])
    runs("y/same", [0], amount=0.2)
    assert [name for name, _ in shown("x", "y")] == ["x/same/seed_0", "y/same/seed_0"]


def test_two_experiments_in_one_folder_have_different_names():
    for seed, amount in enumerate([0.5, 0.5, 0.2, 0.2]):
        runs("all", [seed], amount=amount)
    assert shown("all") == [("all (1)", [0, 1]), ("all (2)", [2, 3])]


def test_a_missing_folder_and_an_unknown_metric_are_refused():
    with pytest.raises(ConfigurationError, match="'nowhere' is not a folder"):
        experiments(["nowhere"])
    runs("a", [0])
    with pytest.raises(ConfigurationError, match="metric='acc' is not known"):
        experiments(["a"], "acc", {"mode": "max"})


@pytest.mark.usefixtures("reports")
def test_the_runs_of_a_study_save_a_report():
    write_runs()
    page, *pictures = Study.read("exp").save_report("page.html", tolerance=0.03)
    assert page == Path("page.html")
    assert "matching within 0.03" in page.read_text()
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
