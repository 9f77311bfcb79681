"""Executes the tutorial, and writes its notebook and the pictures that the pages show.

Run: python -m tests.helpers.tutorial, after each change of examples/tutorial.py. Takes less than three minutes.
"""

import base64
import tempfile
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

from tests.helpers.pages import DOCS
from tests.helpers.scripts import ROOT

SCRIPT, NOTEBOOK = ROOT / "examples" / "tutorial.py", ROOT / "examples" / "tutorial.ipynb"
# The pictures in the order of the notebook.
PICTURES = [
    *(DOCS / "images" / f"matrix_{step}.png" for step in ("initial", "trained", "pruned", "reset", "rounds")),
    DOCS / "images" / "tickets_and_controls.png",
]


def executed(folder: Path) -> NotebookNode:
    """The notebook of the script with the outputs of a run in a folder."""
    notebook = jupytext.read(SCRIPT)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()
    return notebook


def pictures(notebook: NotebookNode) -> list[bytes]:
    """The PNG files of all pictures in a notebook."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [
        base64.b64decode(output.data["image/png"]) for output in outputs if "image/png" in output.get("data", {})
    ]


def text_of(notebook: NotebookNode) -> str:
    """Everything that a notebook prints."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output.text for output in outputs if output.output_type == "stream")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        notebook = executed(Path(folder))
    for number, cell in enumerate(notebook.cells):
        # When each cell ran, and random names of cells, would change the file with each run.
        cell.metadata.pop("execution", None)
        cell.id = f"cell-{number}"
    nbformat.write(notebook, NOTEBOOK)
    for path, picture in zip(PICTURES, pictures(notebook), strict=True):
        path.write_bytes(picture)


if __name__ == "__main__":
    main()
