"""Finds the folder for a new run, and the folder of a run to resume."""

import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from lightning_lottery.errors import ConfigurationError, LotteryError
from lightning_lottery.files import is_url
from lightning_lottery.preflight.identity import as_read, describe_trainer, seed_given
from lightning_lottery.rules import Settings, alike
from lightning_lottery.storage import RunDescription, RunFolder, RunState

PATIENCE = 10.0  # seconds; the data workers of a killed process live a little longer and hold its lock


def open_folder(trainer: Trainer, settings: Settings, earlier: RunFolder | None) -> RunFolder:
    """Chooses the folder of a run, and locks it so that no other process trains in it.

    Args:
        trainer: The Trainer.
        settings: The arguments.
        earlier: The folder of the run to resume; ``None`` for a new run.

    Returns:
        The folder, for this process; locked by process 0.

    Raises:
        ConfigurationError: The folder contains another run, is not local, or another process trains in it.
    """
    if earlier is not None:
        return _on_process_0(trainer, lambda: _locked(earlier))
    where = _base_folder(trainer)  # called on all processes, since Lightning's log_dir synchronises them
    if settings.dirpath is None and is_url(where) and not trainer.fast_dev_run:  # type: ignore[attr-defined]
        raise ConfigurationError(
            f"The run folder would be in {where!r}, which is not a local folder. Write for example "
            "LotteryTicketCallback(..., dirpath='runs/mine')."
        )
    return _on_process_0(trainer, lambda: _new_folder(trainer, settings, Path(where) / "lottery"))


def _on_process_0(trainer: Trainer, choose: Callable[[], RunFolder]) -> RunFolder:
    """Lets process 0 choose a folder for all processes, since the others might already see its files."""
    chosen: RunFolder | LotteryError | None = None
    if trainer.is_global_zero:
        try:
            chosen = choose()
        except LotteryError as error:
            chosen = error
    heard = trainer.strategy.broadcast(chosen.path if isinstance(chosen, RunFolder) else chosen)
    if isinstance(heard, LotteryError):
        raise heard
    return chosen if isinstance(chosen, RunFolder) else RunFolder(Path(str(heard)), is_writer=False)


def _locked(folder: RunFolder) -> RunFolder:
    if not folder.lock(wait=PATIENCE):
        raise ConfigurationError(
            "Another process, or another fit of this process, is training in the run folder "
            f"{str(folder.path)!r}. Give each job its own dirpath. To resume that run, end the other process "
            "first."
        )
    return folder


def _new_folder(trainer: Trainer, settings: Settings, default: Path) -> RunFolder:
    if trainer.fast_dev_run:  # type: ignore[attr-defined]  # a trial leaves no files, as with Lightning's own
        temporary = TemporaryDirectory(prefix="lottery-")
        return RunFolder(Path(temporary.name), temporary)
    if settings.dirpath is None:
        return RunFolder.next_free(default)
    folder = RunFolder(settings.dirpath)
    _check_free(folder, settings)
    _locked(folder)
    try:
        _check_free(folder, settings)  # another process may have trained a round while this one waited
    except ConfigurationError:
        folder.unlock()
        raise
    return folder


def _check_free(folder: RunFolder, settings: Settings) -> None:
    if folder.holds_records() and not settings.overwrite:
        raise ConfigurationError(
            f"dirpath={str(folder.path)!r} contains another run. Resume it with "
            "trainer.fit(..., ckpt_path=lottery.resume(trainer)), choose another folder, or write overwrite=True "
            "to replace that run."
        )


def _base_folder(trainer: Trainer) -> str:
    """The parent of run folders without ``dirpath``: the folder of the logger, or else of the Trainer.

    For loggers that only have an id, it is the folder in which ``ModelCheckpoint`` puts its files.
    """
    logger = trainer.loggers[0] if trainer.loggers else None
    if logger is None or isinstance(logger, (TensorBoardLogger, CSVLogger)):
        return os.fspath(trainer.log_dir or trainer.default_root_dir)  # third-party loggers may return a Path
    folder, version = os.fspath(logger.save_dir or trainer.default_root_dir), logger.version
    if version is not None:
        version = version if isinstance(version, str) else f"version_{version}"
        folder = os.path.join(folder, str(logger.name), version)  # noqa: PTH118 (it may be a URL)
    return str(trainer.strategy.broadcast(folder))  # some loggers have an id only on process 0


def find_run(trainer: Trainer, settings: Settings) -> RunFolder | None:
    """Finds the run to resume: the one in ``dirpath``, or else the newest matching run, if any."""
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return None  # a trial run is never resumed
    wanted = RunDescription(settings.described(), describe_trainer(trainer), seed_everything=seed_given())
    return newest_run(_known_folders(trainer, settings), settings.dirpath, wanted)


def folder_of(trainer: Trainer, state: RunState, settings: Settings) -> RunFolder:
    """Finds the run folder that a checkpoint belongs to.

    Args:
        trainer: The Trainer.
        state: The state in the checkpoint.
        settings: The arguments.

    Raises:
        ConfigurationError: The folder is missing or contains another run.
    """
    named = RunFolder(settings.dirpath or Path(state.folder))
    if _id(named) == state.run:
        return named
    for path in _known_folders(trainer, settings):  # it may have been moved there
        if _id(folder := RunFolder(path)) == state.run:
            return folder
    if named.description() is None:
        raise ConfigurationError(
            f"The checkpoint belongs to a run in {str(named.path)!r}, but there is none. If the folder has moved, "
            "write LotteryTicketCallback(..., dirpath=<its new place>)."
        )
    raise ConfigurationError(
        f"The checkpoint does not belong to the run in {str(named.path)!r}, where a new run was started later. "
        "Use a checkpoint of the new run, or fit without ckpt_path."
    )


def _id(folder: RunFolder) -> str | None:
    """The id of the run in a folder."""
    description = folder.description()
    return None if description is None else description.run


def _known_folders(trainer: Trainer, settings: Settings) -> list[Path]:
    """The folders in which runs with these arguments may have been started."""
    if settings.dirpath is not None:
        return [settings.dirpath]
    base = _base_folder(trainer)
    if is_url(base):
        return []
    found = set(Path(base).glob("lottery*"))  # also with a version that the user chose
    logger: Any = trainer.loggers[0] if trainer.loggers else None
    if isinstance(logger, (TensorBoardLogger, CSVLogger)):  # every fit has its own version and folder
        inside = Path(getattr(logger, "sub_dir", None) or "")
        found |= set(Path(logger.root_dir).glob(str(Path("*") / inside / "lottery*")))
    elif logger is not None:  # the run may have another id, or come from an older version without ids
        root = Path(logger.save_dir or trainer.default_root_dir)
        found |= {*root.glob("lottery*"), *(root / str(logger.name)).glob("*/lottery*")}
    return [path for path in sorted(found) if path.is_dir()]


def newest_run(folders: list[Path], dirpath: Path | None, wanted: RunDescription) -> RunFolder | None:
    """Finds the newest matching run in some folders, if any.

    Args:
        folders: The folders to search.
        dirpath: The folder that the user chose, if any. Then a run with other arguments is found too, and resuming
            it raises an error with the differences. Otherwise such a run is another experiment.
        wanted: The known part of the description of the current run.
    """
    found = [(folder, then) for path in folders if (then := (folder := RunFolder(path)).description()) is not None]
    if dirpath is None:
        wanted = as_read(wanted)
        found = [(folder, then) for folder, then in found if _matches(then, wanted)]
    newest_last = sorted((folder for folder, _ in found), key=RunFolder.started)
    return newest_last[-1] if newest_last else None


def _matches(then: RunDescription, wanted: RunDescription) -> bool:
    is_same_start = alike(then.arguments, wanted.arguments) and alike(then.trainer, wanted.trainer)
    return is_same_start and then.seed_everything == wanted.seed_everything
