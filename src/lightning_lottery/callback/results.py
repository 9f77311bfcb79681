"""The results of a run, as the callback offers them."""

import copy
import os
import tempfile
import uuid
from pathlib import Path
from typing import Any

from typing_extensions import Self

from lightning_lottery.callback.masking import MaskingCallback
from lightning_lottery.files import write_atomically
from lightning_lottery.rules import Settings
from lightning_lottery.storage import Records, RunFolder, Tickets, smallest_matching
from lightning_lottery.tickets import Ticket


class Results(MaskingCallback):
    """Base class of the callback: records and tickets of its current or last run."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._reset()

    def _reset(self) -> None:
        """Sets the state without a run."""
        self._records = Records()
        self._mailbox = Mailbox()
        self._folder: RunFolder | None = None

    def __copy__(self) -> Self:
        return self._copied({}, is_deep=False)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self._copied(memo, is_deep=True)

    def _copied(self, memo: dict[int, Any], is_deep: bool) -> Self:
        """A copy with the same arguments and attributes of subclasses, but without the run."""
        other = memo[id(self)] = type(self).__new__(type(self))
        other._reset()
        for name in vars(self).keys() - vars(other).keys():
            value = vars(self)[name]
            vars(other)[name] = copy.deepcopy(value, memo) if is_deep else value
        return other

    @property
    def records(self) -> Records:
        """One :class:`RoundRecord` per finished round: ``records[r]`` for round r, then those of the controls."""
        self._receive_run()
        return self._records

    @property
    def tickets(self) -> Tickets:
        """The tickets by round, read from the run folder; ``tickets["shuffle_mask"]`` are those of a control."""
        self._receive_run()
        return Tickets(self._folder)

    @property
    def run_folder(self) -> Path | None:
        """The folder of the run; ``None`` before the first one."""
        self._receive_run()
        return None if self._folder is None else self._folder.path

    def _receive_run(self) -> None:
        """Takes over a run that another process of this fit has trained."""
        if (path := self._mailbox.receive()) is not None:
            self._folder = RunFolder(path)
            self._records = self._folder.read_records()

    def smallest_matching(self, tolerance: float = 0.0) -> Ticket:
        """Finds the smallest ticket that matches the dense network.

        Args:
            tolerance: How much worse than dense still matches, in units of the monitored metric, at least 0.

        Returns:
            The ticket of smallest density whose best value of the monitored metric is at most ``tolerance`` worse
            than that of round 0. If there is none, the ticket of round 0.

        Raises:
            ConfigurationError: Nothing was monitored, or the dense round was not trained.
        """
        return self.tickets[smallest_matching(self.records, self.settings.mode or "min", tolerance).round]


class Mailbox:
    """Tells a callback where its copy in another process has trained.

    With ``ddp_spawn`` and in notebooks a fit trains in other processes, whose objects are lost afterwards.
    """

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._path = Path(tempfile.gettempdir()) / f"lightning-lottery-{uuid.uuid4().hex}"

    def send(self, folder: Path) -> None:
        """Sends the path of the run folder, if the callback was created in another process."""
        if os.getpid() != self._owner:
            write_atomically(self._path, str(folder.absolute()).encode())

    def receive(self) -> Path | None:
        """Returns the path that another process has sent, once; ``None`` if there is none."""
        if os.getpid() != self._owner or not self._path.exists():
            return None
        folder = Path(self._path.read_text())
        self._path.unlink()
        return folder if folder.exists() else None
