"""How a process that a Trainer has started says where its run is.

With ``ddp_spawn`` and in notebooks a fit trains in other processes, and what a callback notes there stays there.
"""

import os
import tempfile
import uuid
from pathlib import Path

from lightning_lottery.files import write_whole


class Mailbox:
    """A name that a callback and its copies in other processes share."""

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._path = Path(tempfile.gettempdir()) / f"lightning-lottery-{uuid.uuid4().hex}"

    def send(self, folder: Path) -> None:
        """Says where the run folder is, if the callback was made in another process."""
        if os.getpid() != self._owner:
            write_whole(self._path, str(folder.absolute()).encode())

    def receive(self) -> Path | None:
        """The run folder of which another process has said that it is there; once."""
        if os.getpid() != self._owner or not self._path.exists():
            return None
        folder = Path(self._path.read_text())
        self._path.unlink()
        return folder if folder.exists() else None
