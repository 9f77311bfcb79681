"""Who may import whom, and what users may import."""

import ast
import doctest
import importlib
import inspect
import pkgutil
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import lightning_lottery

SOURCE = Path(lightning_lottery.__file__).parent
TESTS = Path(__file__).parent
MODULES = [module.name for module in pkgutil.walk_packages([str(SOURCE)], "lightning_lottery.")]
# From the bottom to the top: a room (a folder, or a single module) imports only from lines above its own.
ROOMS = [
    ["errors"],
    ["files", "plain", "attributes"],
    ["literature", "masks", "channels"],
    ["vision", "pruning"],
    ["tickets"],
    ["storage"],
    ["analysis"],
    ["_lightning", "rules", "report"],
    ["preflight", "export", "study"],
    ["rounds"],
    ["callback"],
    ["__init__"],
    ["cli"],
    ["__main__"],
]
HEIGHT = {room: number for number, line in enumerate(ROOMS) for room in line}
WITHOUT_LIGHTNING = [
    *("errors", "files", "plain", "attributes", "literature", "masks", "channels"),
    *("pruning", "tickets", "storage", "analysis", "rules", "report", "export", "study"),
]
# Names that users import from a room; other rooms need not take them.
PUBLIC = {
    "analysis": {
        "PairedDifference",
        "Quantity",
        "Verdict",
        "VerdictRow",
        "Word",
        "holm",
        "paired_difference",
        "word_for",
    },
    "masks": {"Masks", "density", "fingerprint", "kept", "pack", "prunable", "prune_smallest", "unpack"},
    "literature": {"published"},
    "vision": {
        *("CIFAR10", "CIFAR100", "CifarResNet", "CifarVGG", "CifarViT", "Classifier", "Conv2", "Conv4", "Conv6"),
        *("CropAndFlip", "EMNIST", "FashionMNIST", "KMNIST", "LeNet300100", "MLP", "MNIST", "MNIST5000", "SVHN"),
        *("TensorLoader", "ToFloat", "WarmUpAndDrops", "WideResNet"),
    },
    "cli": {"LotteryCLI", "main"},
    "export": {
        *("ExportReport", "Latency", "Measurement", "OnnxNetwork", "SemiStructuredLinear", "SparseLinear"),
        "Speedup",
    },
    "study": {"Engine", "Processes", "Ray", "Replicate", "Replicates", "Study", "Workers"},
}


def files():
    """Every file with the room it belongs to."""
    for path in sorted(SOURCE.rglob("*.py")):
        yield path, path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(path):
    """Module and name of all that a file imports, at its top or inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield from ((node.module or "", alias.name) for alias in node.names)


def of_package(path):
    """The same for what a file imports from this package, as (room, rest of the module, name)."""
    for module, name in imported(path):
        package, _, rest = module.partition(".")
        if package == "lightning_lottery":
            room, _, inner = rest.partition(".")
            if not room:  # from lightning_lottery import <room>
                room, name = (name, "") if name in HEIGHT else ("__init__", name)
            yield room, inner, name


def test_every_room_has_a_place():
    assert set(HEIGHT) == {room for _, room in files()}


def test_imports_go_only_downwards():
    for path, room in files():
        for target, _, name in of_package(path):
            assert target == room or HEIGHT[target] < HEIGHT[room], f"{path} imports {name} from {target}"


def attributes_of_rooms(path):
    """Room and name of every ``<room>.<name>`` in a file that imports the room as a module."""
    rooms = {target for target, _, name in of_package(path) if not name}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in rooms:
            yield node.value.id, node.attr


def test_rooms_are_entered_by_the_front_door():
    for path, room in files():
        names = [(target, name) for target, _, name in of_package(path) if target != room and name]
        for target, name in [*names, *attributes_of_rooms(path)]:
            if (SOURCE / target).is_dir():
                door = importlib.import_module(f"lightning_lottery.{target}")
                assert name in door.__all__, f"{path} takes {name}, which {target} does not offer"
        for target, inner, name in of_package(path):
            assert target == room or not inner, f"{path} imports {target}.{inner}; take it from the front door"
            assert not name.startswith("_"), f"{path} imports {name}"
            from_own_door = target == room and not inner and path.name != "__init__.py"
            parts = (SOURCE / room / f"{name}.py", SOURCE / room / name / "__init__.py")
            assert not from_own_door or any(part.exists() for part in parts), f"{path} enters its own room"


def test_front_doors_offer_only_what_is_taken():
    taken = {(target, name) for path, room in files() for target, _, name in of_package(path) if target != room}
    taken |= {pair for path, _ in files() for pair in attributes_of_rooms(path)}
    for room in (line for line in HEIGHT if (SOURCE / line / "__init__.py").exists()):
        door = importlib.import_module(f"lightning_lottery.{room}")
        unused = {name for name in door.__all__ if (room, name) not in taken} - PUBLIC.get(room, set())
        assert not unused, f"nobody takes {unused} from {room}"


def test_the_files_of_a_room_import_each_other_in_one_direction():
    for room in (line for line in HEIGHT if (SOURCE / line).is_dir()):
        paths = {inner_name(path, room): path for path in (SOURCE / room).rglob("*.py")}
        needs = {
            name: {
                other
                for target, inner, imported_name in of_package(path)
                for other in (inner, f"{inner}.{imported_name}".strip("."))
                if target == room and other in paths and other != name
            }
            for name, path in paths.items()
            if name
        }
        assert list(TopologicalSorter(needs).static_order())  # raises CycleError


def inner_name(path, room):
    """The name of a module within its room; that of a folder inside the room is the name of the folder."""
    parts = path.relative_to(SOURCE / room).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_tensors_and_files_do_not_need_lightning():
    assert set(WITHOUT_LIGHTNING) <= set(HEIGHT)
    for path, room in files():
        if room in WITHOUT_LIGHTNING:
            roots = {module.split(".")[0] for module, _ in imported(path)}
            assert not roots & {"lightning", "lightning_fabric", "pytorch_lightning"}, path
            assert all(target in WITHOUT_LIGHTNING for target, _, _ in of_package(path)), path


def test_only_one_room_touches_private_names_of_lightning():
    for path, room in files():
        if room == "_lightning":
            continue
        tree = ast.parse(path.read_text())
        for module, name in imported(path):
            if module.split(".")[0] == "lightning":
                assert not any(word.startswith("_") for word in [*module.split("."), name]), (
                    f"{path}: {module}.{name}"
                )
        defined = {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
                owner = ast.unparse(node.value)
                own = owner in ("self", "cls", "super()", "torch") or node.attr in defined
                assert own, f"{path.name}:{node.lineno} touches {ast.unparse(node)}"


def test_nothing_else_needs_the_models_and_data_of_the_recipes():
    users = {room for path, room in files() for target, _, _ in of_package(path) if target == "vision"}
    assert users == {"vision", "cli"}


def test_files_and_functions_are_short():
    for path, _ in files():
        text = path.read_text()
        assert len(text.splitlines()) <= 350, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                documented = ast.get_docstring(node, clean=False) or ""
                assert (node.end_lineno or 0) - node.lineno - documented.count("\n") <= 50, f"{path}: {node.name}"


def test_public_methods_have_a_docstring_or_override_a_method_with_one():
    for name in MODULES:
        for cls in vars(importlib.import_module(name)).values():
            if not inspect.isclass(cls) or cls.__module__ != name or cls.__name__.startswith("_"):
                continue
            for attribute, value in vars(cls).items():
                function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
                if not attribute.startswith("_") and inspect.isfunction(function) and not function.__doc__:
                    above = [getattr(base, attribute, None) for base in cls.__mro__[1:]]
                    assert any(getattr(inherited, "__doc__", None) for inherited in above), (
                        f"{name}: {cls.__name__}.{attribute} has no docstring"
                    )


def test_doctests():
    found = {name: doctest.testmod(importlib.import_module(name)) for name in MODULES}
    assert sum(result.failed for result in found.values()) == 0
    attempted = {name.removeprefix("lightning_lottery.") for name, result in found.items() if result.attempted}
    assert attempted == {"callback.lottery", "callback.ticket", "masks.smallest", "study.study"}


def test_exports():
    assert lightning_lottery.__all__ == [
        "ERK",
        "SNIP",
        "Block",
        "Channels",
        "ConfigurationError",
        "Context",
        "Control",
        "Cost",
        "CoupledChannels",
        "Criterion",
        "DenseAgain",
        "EarlyBird",
        "ExportError",
        "FineTune",
        "FolderError",
        "Global",
        "GraSP",
        "InitialTicket",
        "KeepSign",
        "LargeFinalSameSign",
        "Layer",
        "Layerwise",
        "LearningRate",
        "LotteryError",
        "LotteryTicketCallback",
        "Magnitude",
        "MagnitudeIncrease",
        "ModelCard",
        "Movement",
        "NofM",
        "Pattern",
        "Point",
        "Pool",
        "Preview",
        "Random",
        "RandomMask",
        "Records",
        "Reinitialize",
        "Rewind",
        "RoundRecord",
        "Scope",
        "ShuffleMask",
        "SignOnly",
        "Sizes",
        "Stop",
        "Study",
        "SynFlow",
        "Taylor",
        "Ticket",
        "TicketCallback",
        "TicketError",
        "ToEpoch",
        "ToInit",
        "ToStep",
        "Tolerance",
        "TrainingError",
        "Transfer",
        "Unstructured",
    ]
    for name in lightning_lottery.__all__:
        assert getattr(lightning_lottery, name).__doc__


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_it_is_for(name):
    assert importlib.import_module(name).__doc__


def test_tests_are_in_folders_of_the_rooms_and_take_only_from_helpers():
    folders = {path.name for path in TESTS.iterdir() if (path / "__init__.py").exists()}
    assert folders <= {*HEIGHT, "docs", "helpers", "works_with"}
    for path in TESTS.rglob("*.py"):
        taken = [module for module, _ in imported(path) if module.split(".")[0] == "tests"]
        assert all(module.startswith("tests.helpers.") for module in taken), f"{path} imports {taken}"
