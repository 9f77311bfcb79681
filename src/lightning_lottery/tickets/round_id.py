"""RoundId: which training something belongs to."""

import functools
import re
from dataclasses import dataclass

TICKET_BRANCH = "ticket"
_NAME = re.compile(r"round_(\d+)(?:_(\w+))?")


@functools.total_ordering
@dataclass(frozen=True)
class RoundId:
    """One training of a run. Sorted, tickets come before controls, as in the order of training.

    Attributes:
        number: The number of prunings before it; 0 is dense.
        branch: ``"ticket"``, or the name of the control.
    """

    number: int
    branch: str = TICKET_BRANCH

    @property
    def is_ticket(self) -> bool:
        """Whether a ticket is trained, and not a control."""
        return self.branch == TICKET_BRANCH

    @property
    def name(self) -> str:
        """The name in files, folders and loggers, such as ``round_03`` or ``round_03_shuffle_mask``."""
        return f"round_{self.number:02d}" + ("" if self.is_ticket else f"_{self.branch}")

    @classmethod
    def parse(cls, name: str) -> "RoundId | None":
        """Undoes :attr:`name`; ``None`` for other names."""
        match = _NAME.fullmatch(name)
        return None if match is None else cls(int(match[1]), match[2] or TICKET_BRANCH)

    @property
    def ticket(self) -> "RoundId":
        """The training of the ticket in the same round; for a control, that of the ticket that it changes."""
        return RoundId(self.number)

    def __lt__(self, other: "RoundId") -> bool:
        return self._place < other._place

    @property
    def _place(self) -> tuple[bool, int, str]:
        return not self.is_ticket, self.number, self.branch

    def __str__(self) -> str:
        return self.name
