"""Files that are either the old or the new, never half of one."""

import os
import re
import tempfile
from pathlib import Path

from lightning_lottery.errors import ConfigurationError, FolderError


def is_address(path: str | os.PathLike[str]) -> bool:
    """Whether something is an address such as ``s3://bucket/run``, also if a ``Path`` has made ``s3:/…`` of it."""
    # A single letter is a drive of Windows.
    return re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+:/", os.fspath(path)) is not None


def local_path(path: str | Path, example: str) -> Path:
    """A path in a local file system; ``~`` is the home folder.

    Args:
        path: What was passed.
        example: What to write instead of an address.

    Raises:
        ConfigurationError: It is an address, of which a path would make a local folder named after the protocol.
    """
    if is_address(path):
        raise ConfigurationError(
            f"{os.fspath(path)!r} is an address, and only local folders are written and read. Write "
            f"{example}, and copy it afterwards."
        )
    return Path(path).expanduser()


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file under a temporary name in the same folder, then renames it.

    A crash at any moment leaves either the old file or the new one.

    Args:
        path: The file; its folder is made if it is missing.
        content: All of it.

    Raises:
        FolderError: It cannot be written: no space is left, the folder may not be written, …
    """
    try:
        _write_and_rename(path, content)
    except OSError as error:
        raise FolderError(
            f"{path} cannot be written: {error.strerror or error}. What was written before is whole. Make "
            "room, or make the folder writable; a run can then go on (README, 'Going on')."
        ) from error


def _write_and_rename(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())  # mkstemp makes files that only the owner can read
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
