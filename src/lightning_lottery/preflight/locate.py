"""Where the files of a run are: of a new one, and of one to go on with."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from lightning_lottery.errors import ConfigurationError, LotteryError
from lightning_lottery.files import is_address
from lightning_lottery.preflight.description import alike
from lightning_lottery.preflight.identity import describe_trainer
from lightning_lottery.preflight.settings import Settings
from lightning_lottery.storage import RunFolder, RunState

PATIENCE = 10.0  # seconds; data workers outlive a process that was killed by some, and hold its lock


def choose_folder(trainer: Trainer, settings: Settings) -> RunFolder:
    """The run folder that the arguments ask for.

    Raises:
        ConfigurationError: It holds another run.
    """
    where = _base_folder(trainer)  # on all processes: Lightning's log_dir makes them agree
    if settings.dirpath is None and is_address(where) and not trainer.fast_dev_run:  # type: ignore[attr-defined]
        raise ConfigurationError(
            f"The run folder would be in {where!r}, which is no local folder. Write one: "
            "LotteryTicketCallback(..., dirpath='runs/mine')."
        )
    return _on_one_process(trainer, lambda: _choose_folder(trainer, settings, Path(where) / "lottery"))


def claim(trainer: Trainer, settings: Settings, folder: RunFolder, is_resumed: bool) -> RunFolder:
    """Makes sure that no other process trains in a run folder, now that training begins.

    Args:
        trainer: The Trainer.
        settings: The arguments.
        folder: What :func:`choose_folder` gave, or the folder of the run to go on with.
        is_resumed: Whether that run goes on.

    Returns:
        The folder, or another one that is free if nobody has named this one. It is this process's until it is
        unlocked, or until the process ends.

    Raises:
        ConfigurationError: Another process trains there, or has finished a round there since it was chosen.
    """

    def claim_it() -> RunFolder:
        is_named = settings.dirpath is not None or is_resumed
        if folder.lock(wait=PATIENCE if is_named else 0):
            if is_resumed or settings.overwrite or not folder.holds_records():
                return folder
            folder.unlock()
        if is_named:
            raise ConfigurationError(_taken(folder.path) if folder.holds_records() else _in_use(folder.path))
        return RunFolder.next_free(folder.path, lock=True)

    return _on_one_process(trainer, claim_it)


def _on_one_process(trainer: Trainer, choose: Callable[[], RunFolder]) -> RunFolder:
    """Lets process 0 choose a folder, since the others would find what it has written already; all hear of it."""
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


def _choose_folder(trainer: Trainer, settings: Settings, default: Path) -> RunFolder:
    if trainer.fast_dev_run:  # type: ignore[attr-defined]  # a trial leaves no files, as with Lightning's own
        temporary = TemporaryDirectory(prefix="lottery-")
        return RunFolder(Path(temporary.name), temporary)
    if settings.dirpath is None:
        return RunFolder.next_free(default)
    folder = RunFolder(settings.dirpath)
    if folder.holds_records() and not settings.overwrite:
        raise ConfigurationError(_taken(folder.path))
    return folder


def _taken(path: Path) -> str:
    return (
        f"dirpath={str(path)!r} holds another run. Go on with it by "
        "trainer.fit(..., ckpt_path=lottery.resume(trainer)), write another folder, or overwrite=True to "
        "replace that run."
    )


def _in_use(path: Path) -> str:
    return (
        f"Another process trains in the run folder {str(path)!r} just now, or another fit of this one. Give each "
        "job a dirpath of its own; to go on with that run, end the other process first."
    )


def _base_folder(trainer: Trainer) -> str:
    """Where run folders are if ``dirpath`` does not say: in the logger's folder, or else in the Trainer's.

    A logger that only has an id gets the folder that ``ModelCheckpoint`` makes of it.
    """
    logger = trainer.loggers[0] if trainer.loggers else None
    if logger is None or isinstance(logger, (TensorBoardLogger, CSVLogger)):
        return os.fspath(trainer.log_dir or trainer.default_root_dir)  # loggers of others may give a Path
    folder, version = os.fspath(logger.save_dir or trainer.default_root_dir), logger.version
    if version is not None:
        version = version if isinstance(version, str) else f"version_{version}"
        folder = os.path.join(folder, str(logger.name), version)  # noqa: PTH118 (it may be an address)
    return str(trainer.strategy.broadcast(folder))  # only process 0 knows the id of every logger


def find_run(trainer: Trainer, settings: Settings) -> RunFolder | None:
    """The run to go on with: that in ``dirpath``, or else the newest that is like this one, if there is any."""
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return None  # a trial is a run of its own
    wanted = {
        "arguments": settings.described(),
        "trainer": describe_trainer(trainer),
        "seed_everything": os.environ.get("PL_GLOBAL_SEED"),
    }
    return newest_run(_known_folders(trainer, settings), settings.dirpath, wanted)


def folder_of(trainer: Trainer, state: RunState, settings: Settings) -> RunFolder:
    """The run folder that a checkpoint belongs to.

    Args:
        trainer: The Trainer.
        state: The state in the checkpoint.
        settings: The arguments.

    Raises:
        ConfigurationError: It is not there, or another run is.
    """
    named = RunFolder(settings.dirpath or Path(state.folder))
    if named.description().get("run") == state.run:
        return named
    for path in _known_folders(trainer, settings):  # where it may have been moved to
        if (folder := RunFolder(path)).description().get("run") == state.run:
            return folder
    if not named.description():
        raise ConfigurationError(
            f"The checkpoint goes on with the run in {str(named.path)!r}, and there is none. If the folder has "
            "moved, write LotteryTicketCallback(..., dirpath=<where it is>)."
        )
    raise ConfigurationError(
        f"The checkpoint belongs to another run than the one in {str(named.path)!r}, where a new one was "
        "begun since. Take a checkpoint of that one, or fit without ckpt_path."
    )


def _known_folders(trainer: Trainer, settings: Settings) -> list[Path]:
    """Where runs with these arguments may have been begun."""
    if settings.dirpath is not None:
        return [settings.dirpath]
    base = _base_folder(trainer)
    if is_address(base):
        return []
    found = set(Path(base).glob("lottery*"))  # also of a version that the user has named
    logger: Any = trainer.loggers[0] if trainer.loggers else None
    if isinstance(logger, (TensorBoardLogger, CSVLogger)):  # every fit has a version, and so a folder, of its own
        inside = Path(getattr(logger, "sub_dir", None) or "")
        found |= set(Path(logger.root_dir).glob(str(Path("*") / inside / "lottery*")))
    elif logger is not None:  # the run may have had another id, or be of a version that knew no ids
        root = Path(logger.save_dir or trainer.default_root_dir)
        found |= {*root.glob("lottery*"), *(root / str(logger.name)).glob("*/lottery*")}
    return [path for path in sorted(found) if path.is_dir()]


def newest_run(folders: list[Path], dirpath: Path | None, wanted: dict[str, Any]) -> RunFolder | None:
    """The newest of some run folders, if there is any.

    Args:
        folders: Where to look.
        dirpath: The folder that the user names, if he does. A run that was begun otherwise is then found as well:
            going on with it is refused later, with what differs. Else such a run is another experiment.
        wanted: What the run would be if it were begun now, as far as it is known.
    """
    found = [folder for path in folders if (folder := RunFolder(path)).description()]
    found.sort(key=lambda folder: (folder.path / "lottery.json").stat().st_mtime)
    if dirpath is None:
        wanted = json.loads(json.dumps(wanted))
        found = [
            f for f in found if all(alike(f.description().get(name), value) for name, value in wanted.items())
        ]
    return found[-1] if found else None
