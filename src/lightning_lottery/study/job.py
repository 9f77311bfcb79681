"""What is run for one seed."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_LOG = "fit.log"
_SCRIPT = Path(__file__).with_name("seed_process.py")


@dataclass(frozen=True)
class Job:
    """The command of one seed.

    Attributes:
        seed: The seed.
        folder: Its run folder.
        command: The words of the command.
    """

    seed: int
    folder: Path
    command: Sequence[str]

    @property
    def log(self) -> Path:
        """The file with everything that the command prints."""
        return self.folder / _LOG

    @property
    def start(self) -> list[str]:
        """The words that start the command, with its output in the log."""
        return [sys.executable, str(_SCRIPT), str(self.log.absolute()), *self.command]

    def last_words(self) -> str:
        """The last line in the log, which names the error of a failed command; empty if there is none."""
        try:
            lines = self.log.read_text(errors="replace").splitlines()
        except OSError:
            return ""
        written = (line.strip() for line in reversed(lines))
        return next((line for line in written if line), "")
