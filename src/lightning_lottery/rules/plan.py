"""What a run trains: everything in order, what is next, and where a resumed run continues."""

from dataclasses import dataclass

from lightning_lottery.rules.settings import Settings
from lightning_lottery.rules.stopping import Stop
from lightning_lottery.storage import Records, RunFolder, RunState
from lightning_lottery.tickets import SEARCH_BRANCH, TICKET_BRANCH, RoundId


@dataclass(frozen=True)
class Plan:
    """Everything that a run trains, in order: round 0, search rounds if any, the tickets, then the controls.

    Attributes:
        rounds: The trainings. The first is a ticket.
    """

    rounds: tuple[RoundId, ...]

    @classmethod
    def of(cls, settings: Settings) -> "Plan":
        """The plan before training."""
        first = [] if settings.prune_at_init else [RoundId(0)]
        last = settings.sizes.last_round
        search = [] if settings.search is None else [RoundId(number, SEARCH_BRANCH) for number in range(1, last)]
        tickets = [RoundId(number) for number in settings.ticket_rounds]
        return cls((*first, *search, *tickets, *settings.control_ids))

    def shortened(self, settings: Settings, records: Records) -> "Plan":
        """The plan after stop rules have seen the records, without the rounds that they make superfluous."""
        tickets = [record for record in records if record.id.is_ticket]
        for end in range(1, len(tickets) + 1):
            if ending_rule(settings, Records(tickets[:end])) is not None:
                last = tickets[end - 1].round
                # Search rounds come before all tickets except that of round 0.
                return Plan(tuple(e for e in self.rounds if e.number <= last or (e.is_search and last > 0)))
        return self

    @property
    def names(self) -> list[str]:
        """The names of all rounds."""
        return [entry.name for entry in self.rounds]

    @property
    def first(self) -> RoundId:
        """The first round."""
        return self.rounds[0]

    @property
    def last_ticket(self) -> RoundId:
        """The round that trains the smallest ticket."""
        return max(entry for entry in self.rounds if entry.is_ticket)

    def finds(self, entry: RoundId) -> RoundId | None:
        """The round whose masks are found with the trained weights of a round; ``None`` if it finds none."""
        search = [other for other in self.rounds if other.is_search]
        if entry.is_control or (search and entry.is_ticket and entry.number > 0):
            return None
        branches = (SEARCH_BRANCH, TICKET_BRANCH)
        following = (RoundId(entry.number + 1, branch) for branch in branches)
        return next((other for other in following if other in self.rounds), None)

    @property
    def has_controls(self) -> bool:
        """Whether controls follow after the last ticket."""
        return self.last_ticket != self.rounds[-1]

    def before(self, entry: RoundId) -> tuple[RoundId, ...]:
        """All rounds that come before a round."""
        return self.rounds[: self.rounds.index(entry)]

    def after(self, entry: RoundId) -> RoundId | None:
        """The round that follows a round; ``None`` after the last one."""
        place = self.rounds.index(entry) + 1
        return self.rounds[place] if place < len(self.rounds) else None

    def first_unfinished(self, folder: RunFolder) -> RoundId | None:
        """Finds the round at which a run resumes without a checkpoint.

        A round is finished if it has a record and the result of its trained weights exists: the ticket that they
        determine, and for the last ticket the weights themselves.

        Args:
            folder: The run folder.

        Returns:
            The round; ``None`` if everything is trained.
        """
        recorded = {record.id for record in folder.read_records()}
        return next((e for e in self.rounds if e not in recorded or not self._has_result(folder, e)), None)

    def _has_result(self, folder: RunFolder, entry: RoundId) -> bool:
        if entry == self.last_ticket:
            return folder.has_last_ticket()
        found = self.finds(entry)
        return found is None or folder.ticket_path(found).exists()

    def resume(self, folder: RunFolder, state: RunState | None) -> tuple[RoundId | None, RunState | None]:
        """Finds where a run resumes after Lightning has loaded a checkpoint.

        Args:
            folder: The run folder.
            state: The state in the checkpoint; ``None`` without a checkpoint.

        Returns:
            The round, or ``None`` if everything is trained; and the state to continue at. It is ``None`` if the
            round starts over: the state was taken between two rounds, or its round is finished.
        """
        unfinished = self.first_unfinished(folder)
        done = self.rounds if unfinished is None else self.before(unfinished)
        if state is None or state.moment is None or state.id in done or state.id not in self.rounds:
            return unfinished, None
        return state.id, state

    def newest_checkpoint(self, folder: RunFolder) -> str | None:
        """The newest checkpoint of the unfinished round; ``None`` if there is none."""
        unfinished = self.first_unfinished(folder)
        return None if unfinished is None else folder.newest_checkpoint(unfinished.name)


def ending_rule(settings: Settings, records: Records) -> Stop | None:
    """The stop rule that ends the search after the last ticket of these records, if any."""
    tickets = [record for record in records if record.id.is_ticket]
    rules = (rule for rule in settings.stop if tickets and rule.after_round(tickets, settings.mode or "min"))
    return next(rules, None)
