"""What is run for one seed."""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_LOG = "fit.log"
_START = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \$ ")  # the line that seed_process.py writes first
_ERROR = re.compile(r"[\w.]*(Error|Exception|Exit|Interrupt)\b")
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

    def error_line(self) -> str:
        """The last line in the log that names an error, or else the last line; empty if there is none."""
        try:
            lines = self.log.read_text(errors="replace").splitlines()
        except OSError:
            return ""
        written = [line.strip() for line in reversed(lines) if line.strip()]
        start = next((place for place, line in enumerate(written) if _START.match(line)), len(written))
        named = (line for line in written[:start] if _ERROR.match(line))
        return next(named, written[0] if start else "")
