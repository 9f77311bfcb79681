"""Makes the ticket of the next round or control."""

from collections.abc import Mapping
from dataclasses import replace

from lightning_lottery.preflight import Prepared
from lightning_lottery.rounds.follow import update_copies
from lightning_lottery.rounds.next_masks import NextMasks, derived_seed
from lightning_lottery.rounds.rewind_point import RewindPoint
from lightning_lottery.rounds.round import Round
from lightning_lottery.rules import make_control
from lightning_lottery.tickets import SEARCH_BRANCH, RoundId, Ticket, masked_parameters, tensors_of


class NextTicket:
    """Makes tickets from trained weights, and controls from tickets.

    Attributes:
        masks: Makes the masks.
        copies: For each copy of a trained weight the name of its original, or ``None``.

    Args:
        prepared: The run.
        masks: Makes the masks.
        rewind_point: What rounds return to.
    """

    def __init__(self, prepared: Prepared, masks: NextMasks, rewind_point: RewindPoint) -> None:
        self._settings, self._module, self._folder = prepared.settings, prepared.module, prepared.folder
        self._rewind_point = rewind_point
        self.masks = masks
        # Excluded parameters are never changed, even if they are copies.
        excluded: dict[str, str | None] = dict.fromkeys(prepared.selection.excluded)
        self.copies = {**excluded, **prepared.selection.copies}

    def leave_out(self, copies: Mapping[str, str | None]) -> None:
        """Stops pruning parameters that turn out to be copies of trained weights.

        Args:
            copies: For each new copy the name of its original, or ``None``.
        """
        self.copies = {**self.copies, **copies}
        self.masks = self.masks.without(copies, self._settings)

    def make(self, entry: RoundId, trained: Round | None) -> Ticket:
        """Makes the ticket of a round.

        Args:
            entry: The round.
            trained: The round whose trained weights are in the network and give the masks; ``None`` before any
                training, and for a ticket that search rounds have found before.

        Returns:
            The ticket, on the CPU unless it is sharded.
        """
        if entry.is_control:
            return self._control(entry)
        if entry.number == 0:
            return self._rewind_point.dense()
        if trained is None and self._settings.search is not None:
            return self._found(entry)
        if trained is not None:
            masks, start = trained.masks, trained.start
        else:
            dense, start = self._rewind_point.dense(), self._rewind_point.weights
            masks = masked_parameters(dense, self._module)[1]
        made = self.masks.make(entry.number, masks, start.weights())
        return self._rewind_point.next_ticket(entry, made, self.copies)

    def _found(self, entry: RoundId) -> Ticket:
        """The ticket of a round that search rounds have found before."""
        # The last search round has found the last ticket, which no search round trains.
        is_last = entry.number == self._settings.sizes.last_round
        source = entry if is_last else RoundId(entry.number, SEARCH_BRANCH)
        return replace(self._folder.read_ticket(self._folder.ticket_name(source)), branch=entry.branch)

    def _control(self, entry: RoundId) -> Ticket:
        tensors, dense = tensors_of(self._module), self._rewind_point.dense()
        control = self._settings.branches[entry.branch]
        is_initial = control.from_init or entry.number == 0
        if is_initial and not self._settings.prune_at_init:  # which has neither round 0 nor a later point
            dense = self._folder.read_ticket(self._folder.ticket_name(RoundId(0)))
        seed = derived_seed(dense.provenance["seed"], entry.branch, entry.number)
        ticket = self._folder.read_ticket(self._folder.ticket_name(entry.ticket))
        made = make_control(control, ticket.to(tensors), dense.to(tensors), self._module, seed)
        return update_copies(replace(made.to_cpu(), round=entry.number, branch=entry.branch), dense, self.copies)
