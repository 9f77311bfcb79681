"""The records of all finished rounds of a run."""

import operator
from collections.abc import Collection, Iterator, Sequence
from typing import overload

from lightning_lottery.errors import ConfigurationError
from lightning_lottery.plain import check_number
from lightning_lottery.storage.cost import Cost
from lightning_lottery.storage.record import RoundRecord, is_better, rounding
from lightning_lottery.tickets import SEARCH_BRANCH, TICKET_BRANCH, RoundId


class Records(Collection[RoundRecord]):
    """All finished rounds in the order of training. ``records[r]`` is the ticket of round r.

    The records of the controls follow after the last ticket. With ``prune_at_init`` the first round is 1,
    and so is the first index. Negative indices count from the end. ``records["shuffle_mask"]`` gives the records
    of one branch by round.

    With ``search``, the records of search rounds come between round 0 and the other tickets. ``records["search"]``
    gives them by round; ``records[r]`` exists only for rounds whose tickets have trained fully, and slices count
    trainings instead of rounds.
    """

    def __init__(self, records: Sequence[RoundRecord] = ()) -> None:
        self._records = list(records)

    @overload
    def __getitem__(self, key: int) -> RoundRecord: ...
    @overload
    def __getitem__(self, key: slice) -> list[RoundRecord]: ...
    @overload
    def __getitem__(self, key: str) -> dict[int, RoundRecord]: ...
    def __getitem__(self, key: int | slice | str) -> RoundRecord | list[RoundRecord] | dict[int, RoundRecord]:
        if isinstance(key, str):
            return self._of_branch(key)
        if isinstance(key, slice):
            if self._has_search:
                return self._records[key]
            is_falling = key.step is not None and key.step < 0
            start, stop = (self._place(bound, is_falling) for bound in (key.start, key.stop))
            return self._records[start : stop : key.step]
        place = operator.index(key)
        if self._has_search and place >= 0:
            return self._ticket(place)
        if 0 <= place < self._first:
            raise IndexError(
                f"This run has no round {place}: prune_at_init=True prunes before any training. The first is "
                f"records[{self._first}]."
            )
        return self._records[place if place < 0 else place - self._first]

    def _of_branch(self, branch: str) -> dict[int, RoundRecord]:
        found = {record.round: record for record in self._records if record.branch == branch}
        if not found and not RoundId(0, branch).is_ticket:
            raise KeyError(f"no records of branch {branch!r}; the branches are {self.branches()}")
        return found

    @property
    def _has_search(self) -> bool:
        return any(record.id.is_search for record in self._records)

    def _ticket(self, number: int) -> RoundRecord:
        """The ticket of a round, in a run with search rounds."""
        tickets, search = self._of_branch(TICKET_BRANCH), self._of_branch(SEARCH_BRANCH)
        if number not in tickets and number not in search:
            raise IndexError(f"Round {number} has no record; the rounds of tickets are {list(tickets)}.")
        if number not in tickets:
            raise IndexError(
                f"The ticket of round {number} has not trained fully, only those of {list(tickets)} have. Its "
                f"search round is records['search'][{number}]. To train it, write "
                f"TicketCallback(lottery.tickets['search'][{number}])."
            )
        return tickets[number]

    def cost(self) -> Cost:
        """What these trainings cost, in trainings of round 0.

        Raises:
            ConfigurationError: The dense round was not trained, or has not finished.
        """
        return Cost.of(self._records)

    @property
    def _first(self) -> int:
        """The number of the first round that was trained."""
        return self._records[0].round if self._records and self._records[0].id.is_ticket else 0

    def _place(self, number: int | None, is_falling: bool) -> int | None:
        """Converts a bound of a slice to an index of the list."""
        if number is None or number < 0:
            return number
        before_all = -len(self) - 1 if is_falling else 0
        return number - self._first if number >= self._first else before_all

    def __contains__(self, value: object) -> bool:
        return value in self._records

    def __iter__(self) -> Iterator[RoundRecord]:
        return iter(self._records)

    def __reversed__(self) -> Iterator[RoundRecord]:
        return reversed(self._records)

    def __len__(self) -> int:
        return len(self._records)

    def __repr__(self) -> str:
        return f"Records({self._records!r})"

    def branches(self) -> list[str]:
        """The branches with records, in the order of training."""
        return list(dict.fromkeys(record.branch for record in self._records))

    def keep(self, rounds: Collection[RoundId]) -> None:
        """Drops the records of all other rounds than these."""
        self._records = [record for record in self._records if record.id in rounds]

    def append(self, record: RoundRecord) -> None:
        """Adds the record of a round that has just finished."""
        self._records.append(record)


def smallest_matching(records: Records, mode: str, tolerance: float) -> RoundRecord:
    """Finds the round of smallest density whose best value matches that of the dense round.

    Args:
        records: Records with a monitored metric.
        mode: ``"max"`` if larger values are better, ``"min"`` if smaller ones are.
        tolerance: How much worse than dense still matches, in units of the metric, at least 0.

    Returns:
        The record; the one of round 0 if no smaller ticket matches.

    Raises:
        ConfigurationError: Nothing was monitored, no round has finished, or the tolerance is negative.
    """
    tolerance = check_number("tolerance", tolerance, "of at least 0", "tolerance=0.005")
    tickets = records[TICKET_BRANCH]
    if not tickets:
        raise ConfigurationError("No round has finished yet. Call trainer.fit first.")
    if 0 not in tickets:
        raise ConfigurationError(
            "Matching compares with the dense round, but prune_at_init=True trains none. Choose a ticket by its "
            "round, for example lottery.tickets[1]."
        )
    dense = tickets[0].best_value
    if dense is None:
        raise ConfigurationError(
            "Matching compares a monitored metric, but there is none. Write for example "
            "LotteryTicketCallback(..., monitor='val_acc', mode='max')."
        )
    matching = [
        record
        for record in tickets.values()
        if record.best_value is not None
        and not is_better(dense, record.best_value, mode, by=tolerance + rounding(dense, record.best_value))
    ]
    return min(matching, key=lambda record: record.density)
