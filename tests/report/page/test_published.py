"""The part of the page that puts published numbers beside a run."""

import html
import re
from statistics import mean, stdev

import pytest

from lightning_lottery.report import Experiment, Report
from tests.helpers.paper_runs import ACCURACIES, paper_runs
from tests.helpers.tables import Tables

pytestmark = pytest.mark.usefixtures("reports")


def report(runs):
    return Report.of([Experiment.of("name", runs)])


def plain(page):
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", page)).replace("\xa0", " "))


def test_the_table_has_our_numbers_theirs_and_the_difference():
    page = report(paper_runs()).html()
    header, dense, first, second = Tables(page).found["Published and measured val_acc"]
    assert header == ["density", "here", "published", "difference", "in their standard deviations"]
    ours = [[values[place] for values in ACCURACIES.values()] for place in range(3)]
    assert dense == ["100 %", f"{mean(ours[0]):.4f} ± {stdev(ours[0]):.4f}", "0.9171 ± 0.0023", "+0.0029", "+1.3"]
    assert first[2:] == ["0.9194 ± 0.0009", "+0.0106", "+11.8"]
    assert second[2:] == ["0.9174 ± 0.0022", "-0.0074", "-3.4"]
    text = plain(page)
    assert "Beside Renda, Frankle & Carbin 2020" in text
    assert "ToEpoch(12), iterative pruning" in text
    assert "arXiv:2003.02389" in text
    assert "means and sample standard deviations of 3 trainings" in text.lower()
    assert "The authors give test accuracies" in text
    assert "says nothing about the method" not in text


def test_a_shorter_training_and_test_accuracies_are_said():
    tests = {seed: list(values) for seed, values in ACCURACIES.items()}
    text = plain(report(paper_runs(tests, trainer={"max_epochs": 10})).html())
    assert "Rounds here are 10 epochs long" in text
    assert "The authors give test accuracies" not in text
    assert "Published and measured test_acc" in text


def test_other_experiments_have_no_such_part(tmp_path):
    made = report(paper_runs(environment={"data": "FashionMNIST"}))
    assert "Renda" not in made.html()
    assert all("published" not in path.name for path in made.save(tmp_path / "report.html"))


def test_the_figure_is_saved_and_shows_both_curves(tmp_path):
    made = report(paper_runs())
    paths = {path.name for path in made.save(tmp_path / "report.html")}
    assert "report_published.png" in paths
    (drawing,) = [drawing for drawing in made.pictures if drawing.name == "published"]
    (axes,) = drawing.figure.axes
    theirs, ours = axes.get_lines()[:2]
    assert list(theirs.get_ydata())[:2] == [0.9171, 0.9182]
    assert list(theirs.get_xdata())[-1] == 0.1074
    assert list(ours.get_ydata()) == pytest.approx([0.92, 0.93, 0.91])
    assert len(axes.collections) == 2, "a band for each"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "Renda, Frankle & Carbin 2020",
        "these runs (tickets)",
    ]
    assert "51.2 %: 0.93 here, 0.9194 published" in drawing.alt
