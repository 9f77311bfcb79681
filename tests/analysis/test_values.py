"""Verdicts of runs: which values they take, and what they say."""

import math

import numpy as np
import pytest
import torch
from lightning.pytorch import seed_everything

from lightning_lottery import ConfigurationError, DenseAgain, LotteryTicketCallback, ShuffleMask, Study
from lightning_lottery.report import verdict_text
from lightning_lottery.study import replicates
from tests.helpers.fits import Model, Net, Spy, loaders, quiet_trainer
from tests.helpers.written_runs import ACCURACIES, write_runs


def test_the_monitored_metric_is_compared_by_its_best_values():
    verdict = write_runs().verdict(tolerance=0.03)
    assert (verdict.question.metric, verdict.question.mode, verdict.question.at) == ("val_acc", "max", "best")
    assert list(verdict[1].metric.values.values()) == ACCURACIES["ticket"][1]
    assert [row.word for row in verdict.rows] == [None, "winning", "matching", "worse", "worse"]
    assert verdict["shuffle_mask"][2].metric.from_ticket.mean == pytest.approx(0.1875)


def test_other_metrics_are_compared_at_the_end_and_need_a_mode():
    runs = write_runs()
    assert list(runs.verdict(at="end")[1].metric.values.values()) == pytest.approx([0.92, 0.93, 0.92, 0.92])
    loss = runs.verdict("val_loss", mode="min")
    assert loss.question.at == "end"
    assert [row.word for row in loss.rows] == [None, "winning", "inconclusive", "worse", "worse"]
    assert loss[1].metric.to_dense.mean == pytest.approx(-0.0325), "not turned around"
    with pytest.raises(ConfigurationError, match=r"metric='val_loss' also needs mode"):
        runs.verdict("val_loss")
    with pytest.raises(ConfigurationError, match=r"at='best' is only known for .*at='end' for 'val_loss'"):
        runs.verdict("val_loss", mode="min", at="best")
    with pytest.raises(ConfigurationError, match=r"metric='acc' is not known.*metrics val_acc, val_loss"):
        runs.verdict("acc", mode="max")


def test_a_monitored_loss_follows_its_own_mode():
    def losses(seed, records):
        return [{**line, "best_value": 1 - line["best_value"]} for line in records]

    verdict = write_runs(losses, monitor="val_loss", mode="min").verdict()
    assert [row.word for row in verdict.rows] == [None, "winning", "inconclusive", "worse", "worse"]


def test_without_a_monitored_metric_one_must_be_named():
    runs = write_runs(monitor=None, mode=None)
    with pytest.raises(ConfigurationError, match=r"Nothing was monitored.*metric='val_acc', mode='max'"):
        runs.verdict()
    with pytest.raises(ConfigurationError, match=r"reach is a value of the monitored metric, but nothing"):
        runs.verdict("val_acc", mode="max", reach=0.9)
    assert runs.verdict("val_acc", mode="max")[1].word == "winning"


def test_the_step_at_which_a_value_is_reached():
    verdict = write_runs().verdict(reach=0.83)
    assert list(verdict[1].steps.values.values()) == [10, 10, 10, 10]
    assert list(verdict[0].steps.values.values()) == [20, 20, 20, 20]
    assert verdict["shuffle_mask"][1].steps.values == {1: 20}
    assert verdict[1].steps.to_dense.mean == -10


def test_test_metrics_are_taken_for_the_last_or_the_best_weights():
    def tests(seed, number, branch):
        accuracy = ACCURACIES[branch][number][seed]
        best = None if number == 2 else {"test_acc": accuracy - 0.02}
        return {"round": number, "branch": branch, "last": {"test_acc": accuracy - 0.05}, "best": best}

    runs = write_runs(tests=tests)
    last, best = (runs.verdict("test_acc", mode="max", at=at) for at in (None, "best"))
    assert (last.question.at, last.question.is_test) == ("end", True)
    assert last[1].metric.mean == pytest.approx(0.9325 - 0.05)
    assert best[1].metric.mean == pytest.approx(0.9325 - 0.02)
    assert (best[2].word, best[2].metric.n, best[2].missing) == ("inconclusive", 0, [])
    text = runs.table("test_acc", mode="max", at="best")
    assert "test_acc, on the test set, with the weights of the best validation" in text
    assert "round_02 was tested with 0 of 4 seeds." in text
    assert "Nothing was selected by the test set" in text


def of_all(metrics):
    """Test metrics of every training, given those for an accuracy."""
    return lambda seed, number, branch: {
        "round": number,
        "branch": branch,
        "last": metrics(seed, ACCURACIES[branch][number][seed]),
        "best": None,
    }


def test_a_seed_that_is_not_tested_yet_does_not_count():
    runs = write_runs(tests=of_all(lambda seed, accuracy: None if seed == 3 else {"test_acc": accuracy}))
    verdict = runs.verdict("test_acc", mode="max")
    assert (verdict[1].word, verdict[1].metric.n, verdict[1].missing) == ("winning", 3, [])
    assert "round_01 was tested with 3 of 4 seeds." in runs.table("test_acc", mode="max")


def test_a_metric_may_have_one_name_in_the_fit_and_on_the_test_set():
    runs = write_runs(tests=of_all(lambda seed, accuracy: {"val_loss": 2 - accuracy}))
    options = {"mode": "min", "tolerance": 0.005}
    fit, test = (runs.verdict("val_loss", on=on, **options) for on in (None, "test"))
    assert (fit.question.is_test, test.question.is_test) == (False, True)
    assert test[0].metric.mean == pytest.approx(2 - 0.9)
    assert fit[0].metric.mean == pytest.approx(1 - 0.9)
    frame = runs.to_pandas()
    assert frame["val_loss (test, last)"].min() > 1 > frame["val_loss"].max()
    with pytest.raises(ConfigurationError, match=r"'val_acc' is not known on the test set.*test metrics val_loss"):
        runs.verdict(on="test")
    with pytest.raises(ConfigurationError, match="on='val' is neither 'fit' nor 'test'"):
        runs.verdict(on="val")


def test_a_test_set_that_is_the_validation_set_is_said():
    runs = write_runs(tests=of_all(lambda seed, accuracy: {"test_acc": accuracy - 0.01}))
    text = runs.table("test_acc", mode="max")
    assert "the test set seems to be the validation set" in text
    assert "Nothing was selected" not in text


def test_another_mode_than_that_of_the_runs_is_an_error():
    with pytest.raises(ConfigurationError, match=r"mode='min' contradicts the runs, which monitored 'val_acc'"):
        write_runs().verdict(mode="min")


def test_runs_without_a_finished_round_have_no_verdict():
    with pytest.raises(ConfigurationError, match="No round has finished yet"):
        write_runs(lambda seed, records: []).verdict()


def test_without_a_dense_round_the_table_says_so():
    text = write_runs(lambda seed, records: [r for r in records if r["round"] > 0]).table()
    assert "Round 0 was not trained, so nothing is compared with the dense network." in text
    assert "p (Holm)  verdict" not in text
    assert "ticket - control" in text


def test_records_of_older_versions_have_no_curves():
    def without_curves(seed, records):
        return [{name: v for name, v in r.items() if name not in ("curve", "last_step")} for r in records]

    runs = write_runs(without_curves)
    assert runs[0].records[0].last_step == -1
    assert " unknown " in runs.table(reach=0.9)


def test_values_are_reached_up_to_the_rounding_of_single_precision():
    def rounded(seed, records):
        return [{**r, "curve": [[10, float(np.float32(0.9))]]} for r in records]

    assert set(write_runs(rounded).verdict(reach=0.9)[1].steps.values.values()) == {10}


def test_seeds_that_diverged_or_ended_early_are_said():
    def change(seed, records):
        if seed == 1:
            records[1]["best_value"] = None
        return [line for line in records if seed != 2 or line["round"] < 2]

    runs = write_runs(change)
    verdict = runs.verdict()
    assert (verdict[1].metric.n, verdict[1].word, verdict[1].missing) == (3, "inconclusive", [1])
    assert (verdict[2].metric.n, verdict[2].missing) == (3, [])
    assert [row.id.name for row in verdict.rows] == [
        *("round_00", "round_01", "round_02", "round_01_shuffle_mask", "round_02_shuffle_mask")
    ]
    text = runs.table()
    assert "round_01: val_acc is not a finite number for seed 1." in text
    assert "round_02 was trained with 3 of 4 seeds." in text


def test_the_table_reads_well():
    text = write_runs().table(tolerance=0.03, reach=0.83)
    lines = text.splitlines()
    assert lines[0] == (
        "val_acc, the best value of each training: mean ± sample standard deviation of 4 seeds (0, 1, 2, 3)"
    )
    assert "    1  ticket         0.5000  4  0.9325 ± 0.0050  +0.0325 [+0.0245, +0.0405]" in text
    assert "winning\n" in text
    assert "matching within 0.03" in text
    assert "+0.1875 [" in text, "ticket - control"
    assert "first reaches 0.83 (negative differences: earlier)" in text
    assert "2 tickets are 2 tests" in text
    assert "With it, p < 0.05 for 1 of 1 winning." in text
    assert "1 of 4 " in text
    assert "favours the training that fails more often" in " ".join(text.split())
    assert "select by it, so it should come from validation" in text
    assert max(map(len, lines)) <= 130


def test_two_seeds_are_inconclusive_and_one_has_no_interval():
    runs = write_runs()
    two = replicates.Replicates([runs[0], runs[1]])
    assert [row.word for row in two.verdict().rows] == [None, *["inconclusive"] * 4]
    one = replicates.Replicates([runs[0]])
    assert one.verdict()[1].metric.to_dense.low is None
    assert "+0.03" in one.table()
    assert "of 1 seed (0)" in one.table()


def test_pandas_has_one_row_per_training_and_seed():
    frame = write_runs().to_pandas()
    assert len(frame) == 4 * 5
    assert list(frame.columns[:4]) == ["seed", "round", "branch", "density"]
    row = frame[(frame["seed"] == 2) & (frame["round"] == 1) & (frame["branch"] == "shuffle_mask")].iloc[0]
    assert (row["best_value"], row["val_loss"]) == (0.81, pytest.approx(0.19))


def test_without_pandas_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(replicates, "find_spec", lambda name: None)
    runs = write_runs()
    with pytest.raises(ConfigurationError, match="Write pip install pandas"):
        runs.to_pandas()


def test_the_verdict_of_real_trainings_is_that_of_their_weights(digits):
    """Accuracies computed from the trained weights, and their paired differences by NumPy."""
    images, labels = (part[-200:] for part in digits)
    accuracies = {}
    for seed in range(3):
        seed_everything(seed, verbose=False)
        lottery, spy = (
            LotteryTicketCallback(
                densities=[0.3],
                controls=[ShuffleMask(), DenseAgain()],
                monitor="val_acc",
                mode="max",
                dirpath=f"real/{seed}",
                verbose=False,
            ),
            Spy(),
        )
        quiet_trainer(callbacks=[lottery, spy], max_epochs=2).fit(Model(), *loaders(digits))
        model = Model(Net()).eval()
        for record, weights in zip(lottery.records, spy.ends, strict=True):
            model.load_state_dict(weights)
            with torch.no_grad():
                right = (model(images).argmax(1) == labels).float().mean()
            accuracies.setdefault(record.id, []).append(float(right))
    verdict = Study.read("real").verdict(at="end")
    dense = np.array(accuracies[verdict[0].id])
    assert len(verdict.rows) == 4
    for row in verdict.rows[1:]:
        differences = np.array(accuracies[row.id]) - dense
        assert row.metric.to_dense.mean == pytest.approx(differences.mean(), abs=1e-6)
        half = 4.3026527 * differences.std(ddof=1) / math.sqrt(3)  # t(0.975; 2)
        assert row.metric.to_dense.high == pytest.approx(differences.mean() + half, abs=1e-6)
    assert "dense_again" in verdict_text(verdict)
