"""Atomic file writes, and paths in the local file system."""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning_lottery.errors import ConfigurationError, FolderError


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a URL such as ``s3://bucket/run``, also after ``Path`` has turned it into ``s3:/…``."""
    # A single letter is a Windows drive.
    return re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+:/", os.fspath(path)) is not None


def local_path(path: str | Path, example: str) -> Path:
    """Checks that a path is local, and expands ``~``.

    Args:
        path: What was passed.
        example: What the error message suggests to write instead.

    Raises:
        ConfigurationError: The path is a URL. ``Path`` would turn it into a local folder named after the protocol.
    """
    if is_url(path):
        raise ConfigurationError(
            f"{os.fspath(path)!r} is a URL, but only local folders can be written and read. Write "
            f"{example}, and copy the result afterwards."
        )
    return Path(path).expanduser()


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file atomically: under a temporary name in the same folder, then renamed.

    After a crash at any moment, the file has either its old content or the new one.

    Args:
        path: The file. A missing folder is created.
        content: The whole content.

    Raises:
        FolderError: The file cannot be written, for example because the disk is full or the folder is read-only.
    """
    with written_atomically(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def written_atomically(path: Path) -> Iterator[Path]:
    """Gives the temporary name under which a file is to be written; at the end it is renamed.

    After a crash at any moment, the file has either its old content or the new one.

    Args:
        path: The file. A missing folder is created.

    Raises:
        FolderError: The file cannot be written, for example because the disk is full or the folder is read-only.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        temporary = Path(name)
        yield temporary
        _sync(temporary)
        temporary.chmod(0o666 & ~_umask())  # mkstemp creates files that only their owner can read
        temporary.replace(path)
    except BaseException as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise FolderError(
                f"{path} cannot be written: {error.strerror or error}. All files written before are intact. Free "
                "space, or make the folder writable, and try again. A run can be resumed, with --resume or "
                "ckpt_path=lottery.resume(trainer)."
            ) from error
        raise


def _sync(path: Path) -> None:
    """Waits until a file is on the disk."""
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
