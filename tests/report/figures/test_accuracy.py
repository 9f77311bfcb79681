"""Figures of a metric against density show the numbers of the records."""

from math import isnan
from statistics import mean, stdev

import pytest

from lightning_lottery import Records
from lightning_lottery.analysis import verdict_of
from lightning_lottery.report import figures
from lightning_lottery.storage import Replicate, RunDescription
from tests.helpers.fits import needs
from tests.helpers.records import record
from tests.helpers.written_runs import ACCURACIES, write_runs

pytestmark = pytest.mark.usefixtures("reports")


def points(axes):
    """The points of all curves with a label, without those that have no value."""
    labelled = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    return {
        label: [xy for xy in found if not isnan(xy[1])]
        for label, found in labelled.items()
        if not label.startswith("_")
    }


def run_of(*records, monitor="acc"):
    description = RunDescription(arguments={"monitor": monitor, "mode": "max"}, provenance={"seed": "0"})
    return {0: Replicate(None, description, Records(list(records)))}


def test_every_branch_is_drawn_against_density_with_a_band_of_standard_deviations():
    verdict = write_runs().verdict()
    (axes,) = figures.accuracy(verdict).figure.axes
    drawn = points(axes)
    assert list(drawn) == ["tickets", "shuffled mask", "dense network"]
    assert drawn["tickets"] == [[0.5**r, pytest.approx(mean(v))] for r, v in enumerate(ACCURACIES["ticket"])]
    controls = [(r, v) for r, v in enumerate(ACCURACIES["shuffle_mask"]) if v]
    assert drawn["shuffled mask"] == [[0.5**r, pytest.approx(mean(v))] for r, v in controls]
    assert drawn["dense network"][0][1] == pytest.approx(mean(ACCURACIES["ticket"][0]))
    assert axes.get_xscale() == "log"
    assert axes.get_xlim()[0] > axes.get_xlim()[1], "densities fall"
    heights = sorted({round(y, 9) for _, y in axes.collections[0].get_paths()[0].vertices})
    expected = [mean(v) + sign * stdev(v) for v in ACCURACIES["ticket"] for sign in (-1, 1)]
    assert heights == pytest.approx(sorted(expected))


def test_tickets_alone_have_a_panel_of_their_own():
    verdict = write_runs().verdict()
    (axes,) = figures.accuracy(verdict, tickets_alone=True).figure.axes
    assert list(points(axes)) == ["tickets", "dense network"]
    both, alone = figures.overview(verdict).figure.axes
    assert "shuffled mask" in points(both)
    assert "shuffled mask" not in points(alone)


def test_the_text_for_people_who_do_not_see_it_has_the_numbers():
    alt = figures.accuracy(write_runs().verdict()).alt
    assert "tickets with 50 %: 0.9325" in alt
    assert "shuffled mask with 25 %: 0.7125" in alt


def test_search_rounds_are_not_in_figures():
    runs = run_of(record(0, best=0.94), record(1, "search", best=0.5), record(1, best=0.95))
    (axes,) = figures.accuracy(verdict_of(runs)).figure.axes
    assert points(axes)["tickets"] == [[1.0, 0.94], [0.5, 0.95]]


def test_rounds_of_equal_density_are_drawn_by_round():
    densities = [1.0, 0.1, 0.1, 0.1]
    runs = run_of(*(record(n, best=0.9 + 0.01 * n, density=d) for n, d in enumerate(densities)))
    (axes,) = figures.accuracy(verdict_of(runs)).figure.axes
    assert [place for place, _ in points(axes)["tickets"]] == [0, 1, 2, 3]
    assert axes.get_xscale() == "linear"
    assert "round" in axes.get_xlabel()
    assert all(float(tick).is_integer() for tick in axes.get_xticks())


def test_several_experiments_are_in_one_figure():
    first = write_runs().verdict()
    runs = run_of(record(0, best=0.5), record(1, best=0.6), monitor="val_acc")
    drawn = points(figures.compared({"one": first, "other": verdict_of(runs)}).figure.axes[0])
    assert drawn["other"] == [[1.0, 0.5], [0.5, 0.6]]
    assert len(drawn["one"]) == 3


def test_a_control_has_the_same_colour_in_all_figures():
    names = ["mine", "shuffle_mask", "reinitialize", "other"]
    records = [record(0, best=0.9, curve=((1, 0.9),)), record(1, best=0.9, curve=((1, 0.9),))]
    runs = run_of(*records, *(record(1, name, best=0.8, curve=((1, 0.8),)) for name in names))
    drawings = (figures.accuracy(verdict_of(runs)), figures.control_curves(runs))
    colours = [
        {line.get_label(): line.get_color() for line in drawing.figure.axes[0].lines} for drawing in drawings
    ]
    for label in ("mine", "shuffled mask", "random reinitialisation", "other"):
        assert colours[0][label] == colours[1][label]
    assert len({colours[0][label] for label in ("mine", "shuffled mask", "random reinitialisation", "other")}) == 4


def test_a_training_without_a_value_is_left_out():
    needs("matplotlib")
    runs = run_of(record(0, best=0.9), record(1, best=None), record(2, best=0.8))
    (axes,) = figures.accuracy(verdict_of(runs)).figure.axes
    assert points(axes)["tickets"] == [[1.0, 0.9], [0.25, 0.8]]
