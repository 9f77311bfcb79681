"""Runs of one experiment, read from folders that anybody has made."""

import json
from pathlib import Path

import pytest
import torch

from lightning_lottery import ConfigurationError, LotteryError, LotteryTicketCallback, Study, Tolerance
from tests.helpers.fits import Model, loaders, quiet_trainer, same_bits
from tests.helpers.short_run import begin, record, write


def run(path, seed, rounds=3, done=3, **changes):
    begin(Path(path), seed, rounds, **changes)
    if done:
        write(Path(path) / "rounds.jsonl", "".join(json.dumps(record(n, seed)) + "\n" for n in range(done)))


def test_runs_are_found_wherever_they_are():
    run("multirun/2026/0/lottery", 5)
    run("multirun/2026/1/lightning_logs/version_3/lottery", 2, done=1)
    run("by_hand", 0, done=0)
    found = Study.read("multirun", "by_hand", "multirun/2026")
    assert list(found) == [0, 2, 5], "in the order of seeds, each once"
    assert len(found) == 3
    assert [r.is_finished for r in found.values()] == [False, False, True]
    assert found[2].records[0].metrics == {"val_acc": 0.88}
    assert (found[5].monitor, found[5].mode) == ("val_acc", "max")
    assert [entry.number for entry in found[5].plan] == [0, 1, 2]
    assert repr(found) == "Replicates(0: 0 of 3 rounds, 2: 1 of 3 rounds, 5: 3 of 3 rounds)"
    assert list(Study.read("by_hand")) == [0]
    with pytest.raises(KeyError, match=r"no run with seed 1; the seeds are \[0, 2, 5\]"):
        found[1]


def test_links_are_followed_once():
    run("scratch/one", 1)
    run("exp/seed_0", 0)
    Path("exp/seed_1").symlink_to(Path("scratch/one").absolute())
    Path("exp/seed_0/again").symlink_to(Path("exp").absolute())
    assert list(Study.read("exp", "scratch")) == [0, 1]


def test_different_experiments_are_refused():
    run("a", 0)
    run("b", 1, arguments={"amount": 0.2, "monitor": "val_acc", "mode": "max"})
    with pytest.raises(ConfigurationError, match=r"'a' and 'b' are different experiments: amount is 0.5 and"):
        Study.read("a", "b")
    run("c", 2, hyperparameters={"lr": "0.3"})
    with pytest.raises(ConfigurationError, match=r"lr is '0.1' and '0.3'.* or write ignore=\['lr'\]"):
        Study.read("a", "c")
    assert list(Study.read("a", "c", ignore=["l*"])) == [0, 2]
    run("d", 3, structure="other")
    with pytest.raises(ConfigurationError, match="structure is '' and 'other'"):
        Study.read("a", "d")


def test_one_seed_is_not_two_replicates():
    run("a", 0)
    run("b", 0)
    with pytest.raises(ConfigurationError, match=r"'a' and 'b' have the same seed 0, so they are not independent"):
        Study.read("a", "b")


def test_what_cannot_be_read():
    with pytest.raises(ConfigurationError, match="'nowhere' is not a folder"):
        Study.read("nowhere")
    Path("empty").mkdir()
    with pytest.raises(ConfigurationError, match=r"No run was found in 'empty'. A .* contains a lottery.json"):
        Study.read("empty")
    for text in ("{tr", "{}"):
        run("good", 1)
        Path("good/seed_2").mkdir(exist_ok=True)
        Path("good/seed_2/lottery.json").write_text(text)
        with pytest.raises(LotteryError, match=r"good/seed_2/lottery.json is damaged"):
            Study.read("good")
    run("a", 0)
    Path("a/rounds.jsonl").write_text("{}\nnothing\n")
    with pytest.raises(LotteryError, match=r"Line 1 of a/rounds.jsonl cannot be read"):
        Study.read("a")


def test_a_real_run(digits):
    torch.manual_seed(11)
    lottery = LotteryTicketCallback(rounds=2, amount=0.5, dirpath="runs/mine", monitor="val_acc", mode="max")
    quiet_trainer(callbacks=[lottery], max_epochs=1).fit(Model(), *loaders(digits))
    replicate = Study.read("runs")[11]
    assert replicate.is_finished
    assert list(replicate.records) == list(lottery.records)
    assert same_bits(replicate.tickets[2].weights, lottery.tickets[2].weights)


def test_a_run_that_a_stop_rule_has_ended_is_finished(digits):
    rule = Tolerance(drop=0.0)
    lottery = LotteryTicketCallback(
        densities=[0.5, 0.01, 0.009], stop=[rule], dirpath="run", monitor="val_acc", mode="max", verbose=False
    )
    quiet_trainer(callbacks=[lottery], max_epochs=1).fit(Model(), *loaders(digits))
    assert len(lottery.records) < 4
    (replicate,) = Study.read("run").values()
    assert replicate.is_finished
    assert len(replicate.plan) == len(lottery.records)
