"""The option ``--dirpath`` of ``fit``: everything that a fit writes goes into one folder."""

import os
from collections.abc import Iterator
from pathlib import Path
from pydoc import locate

from jsonargparse import Namespace
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_lottery.callback import LotteryTicketCallback
from lightning_lottery.errors import ConfigurationError
from lightning_lottery.files import local_path


def lottery_of(config: Namespace) -> Namespace:
    """The entry of ``LotteryTicketCallback`` in the configuration of a fit.

    Raises:
        ConfigurationError: There is none.
    """
    found = [entry for entry in _entries(config, "callbacks") if _is_a(entry, LotteryTicketCallback)]
    if not found:
        raise ConfigurationError(
            "The configuration has no LotteryTicketCallback. Add one to trainer.callbacks, with "
            "class_path: LotteryTicketCallback."
        )
    return found[0]


def write_into(config: Namespace, folder: str | Path) -> None:
    """Changes the configuration of a fit, so that all files are written into one folder.

    It becomes the run folder, the Trainer's ``default_root_dir`` and the ``save_dir`` of loggers. The ``dirpath``
    of ``ModelCheckpoint`` is moved into it.

    Args:
        config: The configuration of a fit.
        folder: The folder.

    Raises:
        ConfigurationError: The folder is a URL, or there is no ``LotteryTicketCallback``.
    """
    path = local_path(folder, "--dirpath=runs/mine")
    lottery_of(config).init_args.dirpath = str(path)
    config.trainer.default_root_dir = str(path)
    for logger in _entries(config, "logger"):
        if "save_dir" in logger.init_args:
            logger.init_args.save_dir = str(path)
    for callback in _entries(config, "callbacks"):
        if _is_a(callback, ModelCheckpoint) and (dirpath := callback.init_args.get("dirpath")) is not None:
            callback.init_args.dirpath = str(path / _below(dirpath))


def _entries(config: Namespace, what: str) -> Iterator[Namespace]:
    """The classes in ``trainer.callbacks`` or ``trainer.logger``, which may be a list or a single class."""
    value = config.trainer.get(what)
    for entry in value if isinstance(value, list) else [value]:
        if isinstance(entry, Namespace) and "class_path" in entry:
            yield entry


def _below(dirpath: str) -> Path:
    """A path relative to the current folder, or without its root if it is elsewhere."""
    absolute = Path(os.path.abspath(dirpath))  # noqa: PTH100 (resolve would follow links)
    here = Path.cwd()
    return absolute.relative_to(here if absolute.is_relative_to(here) else absolute.anchor)


def _is_a(entry: Namespace, kind: type) -> bool:
    found = locate(entry.class_path)
    return isinstance(found, type) and issubclass(found, kind)
