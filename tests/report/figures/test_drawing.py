"""Figures as SVG and PNG."""

import itertools
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from lightning_lottery.report import figures
from lightning_lottery.report.figures.drawing import _apart
from tests.helpers.written_runs import write_runs

pytestmark = pytest.mark.usefixtures("reports")


@pytest.fixture
def drawing():
    return figures.accuracy(write_runs().verdict())


def test_colours_of_the_svg_follow_the_colour_scheme(drawing):
    svg = drawing.svg("a-")
    assert "light-dark(#0072b2, #58a6dd)" in svg
    assert not re.search(r"(?<!light-dark\()#0072b2", svg), "every use"


def test_a_colour_is_replaced_once_even_if_another_one_becomes_it(drawing):
    swapped = replace(drawing, dark={"#0072b2": "#24292f", "#24292f": "#0072b2"}).svg("a-")
    assert "light-dark(#0072b2, #24292f)" in swapped
    assert "light-dark(#24292f, #0072b2)" in swapped
    assert "light-dark(light-dark" not in swapped


def test_ids_of_two_figures_differ(drawing):
    first, second = (set(re.findall(r'\bid="([^"]*)"', drawing.svg(prefix))) for prefix in ("a-", "b-"))
    assert first
    assert not first & second
    svg = drawing.svg("a-")
    used = set(re.findall(r'(?:href="#|url\(#)([^")]*)', svg))
    assert used
    assert used <= set(re.findall(r'\bid="([^"]*)"', svg))


def test_the_svg_is_whole_and_refers_to_nothing_outside(drawing):
    svg = drawing.svg("a-")
    ElementTree.fromstring(svg.replace("<svg ", '<svg xmlns:xlink="http://www.w3.org/1999/xlink" ', 1))
    assert not re.findall(r'(?:href|src)="(?!#)', svg)
    assert ">density (weights kept / prunable weights)<" in svg, "text stays text"


def test_equal_figures_have_equal_bytes(drawing):
    assert drawing.svg("a-") == figures.accuracy(write_runs().verdict()).svg("a-")


def test_a_picture_is_written_whole(drawing, tmp_path):
    drawing.save(tmp_path / "new" / "figure.png")
    assert (tmp_path / "new" / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_tick_labels_do_not_run_into_each_other():
    densities = [0.8**number for number in range(25)]
    shown = _apart(sorted(densities))
    assert shown[0] == 1
    assert len(shown) <= 10
    assert all(a / b > 1.2 for a, b in itertools.pairwise(shown))
