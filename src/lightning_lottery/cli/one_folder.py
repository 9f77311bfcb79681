"""The option ``--dirpath`` of ``fit``: everything that a fit writes goes into one folder."""

from collections.abc import Iterator
from pathlib import Path
from pydoc import locate

from jsonargparse import Namespace
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

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

    It becomes the run folder and the Trainer's ``default_root_dir``; ``TensorBoardLogger``, ``CSVLogger`` and
    ``ModelCheckpoint`` write there.

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
        if _is_a(logger, TensorBoardLogger, CSVLogger):
            logger.init_args.save_dir = str(path)
    for callback in _entries(config, "callbacks"):
        if _is_a(callback, ModelCheckpoint) and (dirpath := callback.init_args.get("dirpath")) is not None:
            callback.init_args.dirpath = str(path / Path(dirpath).name)


def _entries(config: Namespace, what: str) -> Iterator[Namespace]:
    """The classes in ``trainer.callbacks`` or ``trainer.logger``, which may be a list or a single class."""
    value = config.trainer.get(what)
    for entry in value if isinstance(value, list) else [value]:
        if isinstance(entry, Namespace) and "class_path" in entry:
            yield entry


def _is_a(entry: Namespace, *classes: type) -> bool:
    found = locate(entry.class_path)
    return isinstance(found, type) and issubclass(found, classes)
