"""The page of the report: what it says, and how a browser shows it."""

import html
import re
from dataclasses import replace
from pathlib import Path
from statistics import mean

import numpy as np
import pytest
from scipy.stats import t, ttest_1samp

from lightning_lottery import ConfigurationError, Records, RoundRecord
from lightning_lottery.analysis import verdict_of
from lightning_lottery.report import Experiment, Report, figures
from lightning_lottery.storage import Replicate, RunDescription
from tests.helpers.browser import look
from tests.helpers.records import record
from tests.helpers.tables import Tables
from tests.helpers.written_runs import ACCURACIES, write_runs

pytestmark = pytest.mark.usefixtures("reports")
DESCRIPTION = RunDescription(
    arguments={"monitor": "acc", "mode": "max", "amount": 0.5, "include": []},
    trainer={"max_epochs": 10, "gradient_clip_val": "None"},
    prunable={"first.weight": [100, 784], "last.weight": [10, 100]},
    input_shape=[1, 28, 28],
    command="lightning-lottery fit --config exp.yaml",
    provenance={"seed": "0", "torch_version": "2.14.1"},
    plan=["round_00", "round_01", "round_02"],
)


def plain(page):
    """What can be read, with simple spaces and hyphens."""
    text = html.unescape(re.sub(r"<[^>]*>", " ", page))
    return text.replace("\xa0", " ").replace("\N{MINUS SIGN}", "-")


def report(runs, **options):
    return Report.of([Experiment.of("name", runs, None, options or None)])


def run_of(*records, seed=0, **changes):
    description = replace(DESCRIPTION, **changes)
    return {seed: Replicate(Path("nowhere"), description, Records(list(records)))}


def test_the_table_of_tickets_has_paired_intervals_and_words():
    tables = Tables(report(write_runs(), tolerance=0.03).html()).found
    header, dense, first, second = tables["Tickets"]
    compared = "difference to the dense network [95 %]"
    assert header == ["density", "round", "val_acc", compared, "p (Holm)", "verdict"]
    assert dense[:3] == ["100 %", "0", "0.9000 ± 0.0082"]
    gains = np.array(ACCURACIES["ticket"][1]) - np.array(ACCURACIES["ticket"][0])
    half = t.ppf(0.975, 3) * gains.std(ddof=1) / 2
    low, high = gains.mean() - half, gains.mean() + half
    assert first[3] == f"{gains.mean():+.4f} [{low:+.4f}, {high:+.4f}]"
    assert (first[5], second[5]) == ("winning", "matching within 0.03")


def test_the_table_of_controls_compares_them_with_their_tickets():
    header, first, second = Tables(report(write_runs()).html()).found["Controls"]
    assert header[3] == "ticket - control [95 %]"
    assert first[:2] == ["shuffled mask", "50 %"]
    differences = [a - b for a, b in zip(ACCURACIES["ticket"][2], ACCURACIES["shuffle_mask"][2], strict=True)]
    assert second[3].startswith(f"{mean(differences):+.4f} [")


def test_steps_are_those_that_the_curves_show():
    page = report(write_runs()).html()
    rows = Tables(page).found["Steps, and their difference to the dense network"]
    assert rows[0] == ["training", "step", "difference [95 %]", "seeds"]
    assert rows[1] == ["100 %", "20 ± 0", "", "4 of 4"]
    assert rows[2] == ["50 %", "20 ± 0", "+0 [+0, +0]", "4 of 4"], (
        "0.01 above dense, 10 steps before it 0.09 below"
    )
    assert len(rows) == 4, "controls never reach it"
    assert "Never as good as the dense network: shuffled mask, 50 %; shuffled mask, 25 %." in plain(page)


def test_sizes_count_what_is_left_of_all_parameters():
    runs = run_of(record(0, best=0.9, kept=200, steps=5), record(1, best=0.9, kept=100, steps=5))
    rows = Tables(report(runs).html()).found["Sizes, of 200 prunable weights and 300 parameters"]
    assert rows[1] == ["100 %", "0", "200", "300", "1", "removed"]
    assert rows[2] == ["50 %", "1", "100", "200", "1.5", "removed"]


def test_costs_are_in_trainings_of_round_0():
    names = {"steps": 5, "seconds": 2.0, "flops": 100, "sparse_flops": 100}
    short = {"steps": 1, "seconds": 0.5, "flops": 20, "sparse_flops": 10}
    runs = run_of(
        record(0, best=0.9, **names), record(1, "search", **short), record(1, best=0.9, **names), plan=["round_00"]
    )
    rows = Tables(report(runs).html()).found["Cost, in trainings of round 0"]
    assert rows[1:] == [
        ["tickets", "2.00", "2.00", "2.00", "2.00"],
        ["search rounds", "0.20", "0.20", "0.10", "0.25"],
        ["all", "2.20", "2.20", "2.10", "2.25"],
    ]


def test_the_setup_has_what_is_needed_to_repeat_it():
    page = report(run_of(record(0, best=0.9))).html()
    text = plain(page)
    assert re.search(r"lightning-lottery fit\s+\\\s+--config exp\.yaml", text), "one option per line"
    assert re.search(r"amount\s+0\.5", text)
    assert re.search(r"torch\s+2\.14\.1", text)
    assert re.search(r"max_epochs\s+10", text)
    assert "gradient_clip_val" not in text, "it was not set"
    assert "include" not in text


def test_what_differs_between_seeds_is_shown():
    other = {"torch_version": "2.3.0", "seed": "1"}
    runs = run_of(record(0, best=0.9)) | run_of(record(0, best=0.9), seed=1, provenance=other)
    assert re.search(r"torch\s+2\.14\.1 or 2\.3\.0", plain(report(runs).html()))


def test_costs_of_a_study_are_means_over_finished_seeds():
    whole = [record(n, best=0.9, steps=10, seconds=1.0) for n in range(3)]
    runs = run_of(*whole) | run_of(*whole[:2], seed=1)
    rows = Tables(report(runs).html()).found["Cost, in trainings of round 0 (seed 0)"]
    assert rows[1][1] == "3.00", "of the finished one alone"
    rows = Tables(report(run_of(*whole[:2]) | run_of(*whole[:1], seed=1)).html()).found
    assert rows["Cost, in trainings of round 0 (seed 0 so far)"][1][1] == "2.00"


def test_a_star_marks_words_that_do_not_hold_for_all_tickets_together():
    def page(first):
        values = {0: [0.50, 0.51, 0.52], 1: first, 2: [0.50, 0.53, 0.51]}
        runs = {}
        for seed in range(3):
            runs |= run_of(*(record(n, best=own[seed]) for n, own in values.items()), seed=seed)
        return report(runs).html()

    gains = np.array([0.03, 0.04, 0.055])
    p = ttest_1samp(gains, 0).pvalue
    assert p < 0.05 < 2 * p, "of two tickets, the one with the smaller p-value"
    starred, plain_one = page([0.53, 0.55, 0.575]), page([0.60, 0.62, 0.635])
    assert Tables(starred).found["Tickets"][2][4:] == [f"{2 * p:.4f}", "winning *"]
    assert "A star marks words that do not hold" in plain(starred)
    assert Tables(plain_one).found["Tickets"][2][5] == "winning"
    assert "A star" not in plain(plain_one)


def test_dollars_and_underscores_in_names_are_shown_as_they_are(tmp_path):
    runs = run_of(record(0, best=0.9), record(1, best=0.9), arguments={"monitor": "val$\\frac$_$^", "mode": "max"})
    first = Experiment.of("_x$y$", runs)
    page = Report.of([first, Experiment.of("other", write_runs())])
    page.save(tmp_path / "page.html")
    alone = Report.of([first])
    assert "val$\\frac$_$^" in html.unescape(alone.html())
    alone.save(tmp_path / "alone.html")
    labels = (
        figures.compared({"_x": first.verdict, "y": first.verdict}).figure.axes[0].get_legend_handles_labels()[1]
    )
    assert [label.strip() for label in labels] == ["_x", "y"]


def test_figures_of_an_earlier_report_are_removed(tmp_path):
    report(write_runs()).save(tmp_path / "page.html")
    (tmp_path / "page_other.png").write_text("mine")
    report(run_of(record(0, best=0.9, curve=((1, 0.9),)))).save(tmp_path / "page.html")
    assert {path.name for path in tmp_path.glob("page*.png")} == {
        *("page.png", "page_learning_curves.png", "page_other.png")
    }


def test_seeds_without_a_common_step_are_said_to_have_no_mean_curve():
    runs = run_of(record(0, best=0.9, curve=((1, 0.9),))) | run_of(record(0, best=0.9, curve=((2, 0.9),)), seed=1)
    assert "have no step in common" in report(runs).html()


def test_the_state_says_how_far_a_run_is():
    records = [record(n, best=0.9) for n in range(3)]
    assert "3 trainings, finished" in report(run_of(*records)).html()
    assert "2 trainings ·" in report(run_of(*records[:2], plan=[])).html(), "of an older version"
    assert "2 of 3 trainings: still running, or interrupted" in report(run_of(*records[:2])).html()


def test_a_page_opens_before_any_round_has_finished_and_without_a_metric():
    page = report(run_of())
    assert "No round has finished yet." in page.html()
    assert page.pictures == []
    records = [
        RoundRecord(n, "ticket", 0.5**n, 64 >> n, 64, 70, kept_by_layer={"last.weight": 1000 >> n}) for n in (0, 1)
    ]
    page = report(run_of(*records, arguments={"monitor": None}))
    assert "Nothing was monitored" in page.html()
    assert [drawing.name for drawing in page.pictures] == ["layers"]


def test_a_run_without_a_dense_round_is_shown():
    page = report(
        run_of(record(1, best=0.9), record(2, best=0.8), arguments={"monitor": "acc", "mode": "max"})
    ).html()
    assert "Round 0 was not trained" in page
    assert Tables(page).found["Tickets"][0] == ["density", "round", "acc"]


def test_names_of_users_are_not_html():
    page = Report.of([Experiment.of("<script>alert(1)</script>", run_of(record(0, best=0.9)))]).html()
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)" in page
    runs = run_of(record(0, best=0.9, metrics={"a": 1.0}), arguments={"monitor": "<b>&acc", "mode": "max"})
    page = report(runs).html()
    assert "<b>" not in page


def test_a_report_needs_the_path_of_a_page(tmp_path, monkeypatch):
    page = report(run_of(record(0, best=0.9)))
    with pytest.raises(ConfigurationError, match=r"ends in \.html.*report\.html"):
        page.save(tmp_path / "report.pdf")
    with pytest.raises(ConfigurationError, match="is a URL"):
        page.save("s3://bucket/report.html")
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(ConfigurationError, match=r"ends in \.html"):
        page.save(tmp_path / "folder.html")
    monkeypatch.setattr("lightning_lottery.report.page.report.can_write_report", lambda: False)
    with pytest.raises(ConfigurationError, match=r"pip install 'lightning-lottery\[report\]'"):
        report(run_of())


def test_figures_are_saved_beside_the_page(tmp_path):
    paths = report(write_runs()).save(tmp_path / "new" / "page.html")
    names = ["page.html", "page.png", "page_learning_curves.png", "page_control_curves.png", "page_steps.png"]
    assert [path.name for path in paths] == names
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(names)


def test_several_experiments_are_compared_side_by_side():
    first = Experiment.of("one", write_runs(), differs={"amount": "0.5"})
    other = Experiment.of("other", run_of(record(0, best=0.5), arguments={"monitor": "val_acc", "mode": "max"}))
    page = Report.of([first, replace(other, differs={"amount": "0.2"})])
    rows = {name: cells for name, *cells in Tables(page.html()).found["Results, and what differs"]}
    assert rows[""] == ["one", "other"]
    assert rows["seeds"] == ["4", "1"]
    assert rows["round 0"] == ["val_acc 0.9000 ± 0.0082", "val_acc 0.5000"]
    assert rows["smallest ticket as good"] == ["50 %", "none"]
    assert rows["amount"] == ["0.5", "0.2"]
    assert len(page.pictures) == 1
    unlike = Experiment.of("loss", run_of(record(0, best=0.5), arguments={"monitor": "loss", "mode": "min"}))
    assert Report.of([first, unlike]).pictures == [], "other metrics are not in one figure"


@pytest.mark.slow
@pytest.mark.parametrize(("width", "is_dark"), [(390, False), (390, True), (1400, False), (1400, True)])
def test_a_browser_shows_everything_and_requests_nothing(tmp_path, width, is_dark):
    runs = write_runs()
    long = "a.rather.long.name.of.a.layer.in.a.network.of.many.blocks.weight"
    layers = {long: 50, "last.weight": 10}
    other = run_of(
        record(0, best=0.9, steps=5, kept_by_layer=layers),
        record(1, best=0.9, steps=5, kept_by_layer=layers),
        prunable={long: [10, 10], "last.weight": [5, 4]},
        arguments={"monitor": "val_acc", "mode": "max", "long": "x" * 300},
    )
    Report.of([Experiment.of("four seeds", runs), Experiment.of("n" * 80, other)]).save(tmp_path / "report.html")
    seen = look(tmp_path / "report.html", width, is_dark)
    assert seen.width == width
    assert seen.scroll <= width, "nothing overflows"
    assert seen.wide == []
    assert seen.requests == []
    assert seen.console == []
    assert seen.paper == ("rgb(15, 20, 25)" if is_dark else "rgb(255, 255, 255)")
    assert seen.line == ("rgb(154, 164, 175)" if is_dark else "rgb(110, 119, 129)")
    assert "four seeds" in seen.text
    assert verdict_of(runs)[1].word in seen.text
