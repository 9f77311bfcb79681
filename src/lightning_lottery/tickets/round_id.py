"""RoundId: which training something belongs to."""

import functools
import re
from dataclasses import dataclass

TICKET_BRANCH = "ticket"
SEARCH_BRANCH = "search"
_NAME = re.compile(r"round_(\d+)(?:_(\w+))?")


@functools.total_ordering
@dataclass(frozen=True)
class RoundId:
    """One training of a run. Sorted as in the order of training: round 0, search rounds, tickets, controls.

    Attributes:
        number: The number of prunings before it; 0 is dense.
        branch: ``"ticket"``; ``"search"`` for a short round that only looks for the next mask; or the name of the
            control.
    """

    number: int
    branch: str = TICKET_BRANCH

    @property
    def is_ticket(self) -> bool:
        """Whether a ticket is trained fully, and is neither a control nor a search round."""
        return self.branch == TICKET_BRANCH

    @property
    def is_search(self) -> bool:
        """Whether it is a short round that only looks for the next mask."""
        return self.branch == SEARCH_BRANCH

    @property
    def is_control(self) -> bool:
        """Whether the ticket of a control is trained."""
        return not (self.is_ticket or self.is_search)

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
        """The full training of the ticket in the same round; for a control, that of the ticket that it changes."""
        return RoundId(self.number)

    def __lt__(self, other: "RoundId") -> bool:
        return self._place < other._place

    @property
    def _place(self) -> tuple[int, int, str]:
        stage = 3 if self.is_control else 1 if self.is_search else 2 if self.number else 0
        return stage, self.number, self.branch

    def __str__(self) -> str:
        return self.name
