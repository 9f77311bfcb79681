"""Makes sure that all seeds of a study are the same experiment."""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lightning_lottery.errors import ConfigurationError
from lightning_lottery.files import write_atomically
from lightning_lottery.storage import DESCRIPTION

_STUDY = "study.json"
_CONFIGURATIONS = (".yaml", ".yml", ".json")


def keep_same(dirpath: Path, command: Sequence[str]) -> None:
    """Compares the command of a study, and the configurations that it names, with those of earlier starts.

    They are in ``study.json``, which is written until a seed has begun to train.

    Args:
        dirpath: The folder of the study.
        command: The words of the command. The first, the program, may be elsewhere.

    Raises:
        ConfigurationError: They differ.
        FolderError: The file cannot be written.
    """
    contents = {path: _content(path) for path in _named(command)}
    now = {"command": shlex.join(command[1:]), "configurations": contents}
    now = json.loads(json.dumps(now, default=str))
    try:
        then = json.loads((dirpath / _STUDY).read_text())
    except (OSError, ValueError):
        then = None
    if then is None or not any(dirpath.glob(f"seed_*/{DESCRIPTION}")):
        write_atomically(dirpath / _STUDY, (json.dumps(now, indent=2) + "\n").encode())
        return
    old, new = _flat(then), _flat(now)
    if changed := [name for name in {**old, **new} if old.get(name) != new.get(name)]:
        shown = "; ".join(f"{name} was {old.get(name)!r} and is now {new.get(name)!r}" for name in changed[:3])
        raise ConfigurationError(
            f"The study in {str(dirpath)!r} was started with another command or configuration: {shown}. All seeds "
            "must be the same experiment. Use what it was started with, or choose another dirpath."
        )


def _named(command: Sequence[str]) -> Iterator[str]:
    """The configuration files among the words of a command."""
    for word in command:
        path = word.partition("=")[2] if word.startswith("-") else word
        if path.endswith(_CONFIGURATIONS) and Path(path).is_file():
            yield path


def _content(path: str) -> Any:
    """What a configuration says, without comments and format."""
    text = Path(path).read_text()
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _flat(values: Any, name: str = "") -> dict[str, Any]:
    """All values in nested dictionaries and lists, by their joined names."""
    if isinstance(values, Mapping):
        items = list(values.items())
    elif isinstance(values, list):
        items = [(str(place), value) for place, value in enumerate(values)]
    else:
        return {name: values}
    flat: dict[str, Any] = {}
    for key, value in items:
        flat |= _flat(value, f"{name}.{key}".lstrip("."))
    return flat
