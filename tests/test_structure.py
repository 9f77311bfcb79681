"""Who may import whom, and what users may import."""

import ast
import importlib
import pkgutil
from pathlib import Path

import pytest

import lightning_lottery

SOURCE = Path(lightning_lottery.__file__).parent
# From the bottom to the top: a module imports only from lines above its own.
LAYERS = [
    ["errors"],
    ["plain", "notices", "attributes"],
    ["description"],
    ["files", "patterns", "sharding", "sizes"],
    ["tensors"],
    ["scopes"],
    ["chunks"],
    ["selection"],
    ["masks"],
    ["kinds"],
    ["ticket"],
    ["copies"],
    ["criteria", "prunable"],
    ["pruning", "sensitivity"],
    ["mailbox", "masking", "provenance"],
    ["rewind", "module_state", "controls", "records"],
    ["stopping", "validation"],
    ["guard"],
    ["folder"],
    ["settings", "report"],
    ["_lightning", "resume"],
    ["origin", "chronicle", "round", "next_masks", "results"],
    ["run"],
    ["identity"],
    ["locate"],
    ["preflight", "preview"],
    ["resumable"],
    ["callback"],
    ["__init__"],
    ["vision"],
    ["demo"],
    ["cli"],
]
TORCH_ONLY = [
    "attributes",
    "copies",
    "guard",
    "tensors",
    "notices",
    "plain",
    "description",
    "errors",
    "sharding",
    "files",
    "chunks",
    "selection",
    "masks",
    "sizes",
    "patterns",
    "scopes",
    "criteria",
    "sensitivity",
    "pruning",
    "stopping",
    "prunable",
    "kinds",
    "preview",
    "masking",
    "validation",
    "ticket",
    "rewind",
    "module_state",
    "controls",
    "records",
    "folder",
    "settings",
    "resume",
]


def parts():
    """Every file by the part it belongs to: a module, or a subpackage as a whole."""
    for path in sorted(SOURCE.rglob("*.py")):
        yield path, path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(path):
    """Full names of all that a file imports, at its top or inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_imports_go_only_downwards():
    height = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    assert set(height) == {part for _, part in parts()}, "a module has no layer"
    for path, part in parts():
        for name in imported(path):
            package, _, rest = name.partition(".")
            target = rest.split(".")[0] if rest.split(".")[0] in height else "__init__"
            if package == "lightning_lottery" and target != part:
                assert height[target] < height[part], f"{path.name} imports {name}"


def test_tensors_and_files_know_nothing_of_lightning():
    for path, part in parts():
        if part in TORCH_ONLY:
            assert not [name for name in imported(path) if name.split(".")[0] == "lightning"], path


def test_only_one_module_touches_private_names_of_lightning():
    for path, part in parts():
        if part == "_lightning":
            continue
        private = [
            name
            for name in imported(path)
            if name.split(".")[0] == "lightning" and any(word.startswith("_") for word in name.split("."))
        ]
        assert not private, f"{path.name}: {private}"
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
                owner = node.value
                own = ast.unparse(owner) in (
                    "self",
                    "cls",
                    "super()",
                    "other",
                    "torch",
                )  # other: of the same class
                assert own, f"{path.name}:{node.lineno} touches {ast.unparse(node)}"


def test_nothing_else_needs_the_models_and_data_of_the_recipes():
    users = {
        part for path, part in parts() for name in imported(path) if name.startswith("lightning_lottery.vision")
    }
    assert users <= {"vision", "demo", "cli"}


def test_files_and_functions_are_short():
    for path, _ in parts():
        text = path.read_text()
        assert len(text.splitlines()) <= 350, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                documented = ast.get_docstring(node, clean=False) or ""
                assert (node.end_lineno or 0) - node.lineno - documented.count("\n") <= 50, f"{path}: {node.name}"


def test_exports():
    assert lightning_lottery.__all__ == [
        "ERK",
        "SNIP",
        "Block",
        "Channels",
        "ConfigurationError",
        "Context",
        "Control",
        "Criterion",
        "EarlyBird",
        "FineTune",
        "FolderError",
        "Global",
        "GraSP",
        "LargeFinalSameSign",
        "Layer",
        "Layerwise",
        "LearningRate",
        "LotteryError",
        "LotteryTicketCallback",
        "Magnitude",
        "MagnitudeIncrease",
        "Movement",
        "NofM",
        "Pattern",
        "Point",
        "Pool",
        "Preview",
        "Random",
        "Records",
        "Reinitialize",
        "Rewind",
        "RoundRecord",
        "Scope",
        "ShuffleMask",
        "Sizes",
        "Stop",
        "SynFlow",
        "Taylor",
        "Ticket",
        "TicketError",
        "ToEpoch",
        "ToInit",
        "ToStep",
        "Tolerance",
        "TrainingError",
        "Unstructured",
    ]
    for name in lightning_lottery.__all__:
        assert getattr(lightning_lottery, name).__doc__


@pytest.mark.parametrize("name", [m.name for m in pkgutil.walk_packages([str(SOURCE)], "lightning_lottery.")])
def test_every_module_can_be_imported_by_itself_and_says_what_it_is_for(name):
    assert importlib.import_module(name).__doc__
