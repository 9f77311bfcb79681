"""The part of the page that puts published numbers beside a run."""

import html
import re
from dataclasses import replace
from statistics import mean, stdev

import pytest

from lightning_lottery import Records
from lightning_lottery.report import Experiment, Report
from lightning_lottery.vision import CifarVGG
from tests.helpers.paper_runs import ACCURACIES, DENSITIES, DESCRIPTION, paper_runs
from tests.helpers.records import record
from tests.helpers.tables import Tables

pytestmark = pytest.mark.usefixtures("reports")


def report(runs):
    return Report.of([Experiment.of("name", runs)])


def plain(page):
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", page)).replace("\xa0", " "))


def test_the_table_has_our_numbers_theirs_and_the_difference():
    page = report(paper_runs()).html()
    header, dense, first, second = Tables(page).found["val_acc of tickets, and published test accuracy"]
    assert header == ["density", "these runs", "published", "difference (in their SDs)"]
    ours = [[values[place] for values in ACCURACIES.values()] for place in range(3)]
    assert dense == ["100 %", f"{mean(ours[0]):.4f} ± {stdev(ours[0]):.4f}", "0.9171 ± 0.0023", "+0.0029 (+1.3)"]
    assert first[2:] == ["0.9194 ± 0.0009", "+0.0106 (+11.8)"]
    assert second[2:] == ["0.9174 ± 0.0022", "-0.0074 (-3.4)"]
    text = plain(page)
    assert "Tickets, compared with Renda, Frankle & Carbin 2020" in text
    assert "rewinding to epoch 12 (ToEpoch(12)), iterative pruning" in text
    assert "arXiv:2003.02389" in text
    assert "means and sample standard deviations (SDs) of 3 trainings (dense: 246)" in text
    assert "This table has val_acc, best of each training." in text
    assert "The authors train for 71,108 steps, these runs for 640 (1%)." in text


def test_test_accuracies_need_no_note():
    text = plain(report(paper_runs(ACCURACIES)).html())
    assert "This table has" not in text
    assert "test_acc of tickets, and published test accuracy" in text


def test_trainings_of_the_same_length_need_no_note():
    runs = paper_runs()
    same = {
        seed: replace(run, records=Records([replace(record, steps=71_108) for record in run.records]))
        for seed, run in runs.items()
    }
    assert "The authors train for" not in plain(report(same).html())


def test_without_published_deviations_there_is_none_in_the_table():
    arguments = {"criterion": "Magnitude()", "prune_at_init": True, "rewind": "ToInit()"}
    arguments["scope"] = "Global(min_density=0.0, keep_alive=False)"
    shapes = {name: list(p.shape) for name, p in CifarVGG(16).named_parameters() if p.dim() > 1}
    runs = paper_runs(arguments=arguments, prunable=shapes, counts=[14_715_584, 147_156])
    runs = {0: replace(runs[0], records=Records([record(1, best=0.9, density=0.01, steps=62_560)]))}
    page = report(runs).html()
    header, row = Tables(page).found["val_acc of tickets, and published test accuracy"]
    assert header[-1] == "difference"
    assert row[2:] == ["0.898", "+0.0020"]
    text = plain(page)
    assert "means, without deviations, of 3 trainings" in text
    assert "standard deviation." not in text.split("Learning curves")[0].split("compared with")[1]


def test_controls_have_a_part_of_their_own():
    counts = {"counts": [270_896, 56_811], "arguments": {**DESCRIPTION.arguments, "rewind": "ToInit()"}}
    values = {"ticket": (0.92, 0.91), "reinitialize": (None, 0.88)}
    records = [
        record(n, branch, best=value, density=DENSITIES[2 * n])
        for branch, pair in values.items()
        for n, value in enumerate(pair)
        if value is not None
    ]
    made = report({0: replace(paper_runs(**counts)[0], records=Records(records))})
    tables = Tables(made.html()).found
    assert len(tables["val_acc of tickets, and published test accuracy"]) == 3
    assert tables["val_acc of random reinitialisation, and published test accuracy"][1][2] == "0.8843 ± 0.0032"
    assert {"published", "published_reinitialize"} <= {drawing.name for drawing in made.pictures}


def test_a_small_table_is_beside_its_figure_and_a_wide_one_below():
    (body,) = report(paper_runs()).bodies
    results, compared = body.sections[:2]
    assert (len(results.tables[0].header), results.is_pair) == (6, False)
    assert (len(compared.tables[0].header), compared.is_pair) == (4, True)


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
    assert "51.2 %: 0.93 in these runs, 0.9194 published" in drawing.alt
