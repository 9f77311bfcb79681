"""The tickets of a run, read from its folder."""

from collections.abc import Iterator, Mapping
from typing import overload

from lightning_lottery.storage.folder import RunFolder
from lightning_lottery.tickets import SEARCH_BRANCH, TICKET_BRANCH, RoundId, Ticket


class Tickets(Mapping[int, Ticket]):
    """The tickets of a run by round. Every access reads the file.

    ``tickets[3]`` is the ticket of round 3, ``tickets["shuffle_mask"][3]`` that of a control. A ticket is written
    when its round starts, so there may be one more ticket than records.

    Args:
        folder: The run folder; ``None`` if no run has started.
        branch: The branch of the tickets.
    """

    def __init__(self, folder: RunFolder | None, branch: str = TICKET_BRANCH) -> None:
        self._folder = folder
        self._branch = branch

    @overload
    def __getitem__(self, key: int) -> Ticket: ...
    @overload
    def __getitem__(self, key: str) -> "Tickets": ...
    def __getitem__(self, key: int | str) -> "Ticket | Tickets":
        if isinstance(key, str):
            branches = self._branches()
            if key not in branches and not RoundId(0, key).is_ticket:
                raise KeyError(f"no tickets of branch {key!r}; the branches are {branches}")
            return Tickets(self._folder, key)
        if self._folder is None or key not in self:
            found = RoundId(key, SEARCH_BRANCH) in self._found() and RoundId(key, self._branch).is_ticket
            raise KeyError(
                f"no ticket {key!r} of branch {self._branch!r}; the rounds are {list(self)}"
                + (f". A search round has found it: tickets['search'][{key}]" if found else "")
            )
        return Ticket.load(self._folder.ticket_path(RoundId(key, self._branch)))

    def _found(self) -> list[RoundId]:
        return [] if self._folder is None else self._folder.ticket_ids()

    def _branches(self) -> list[str]:
        return list(dict.fromkeys(entry.branch for entry in self._found()))

    def __iter__(self) -> Iterator[int]:
        return iter([entry.number for entry in self._found() if entry.branch == self._branch])

    def __contains__(self, key: object) -> bool:
        return key in self._branches() if isinstance(key, str) else isinstance(key, int) and key in list(self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"Tickets(branch={self._branch!r}, rounds={list(self)})"
