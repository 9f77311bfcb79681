"""A run: round after round on one Trainer, then the controls."""

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from lightning_lottery._lightning import FlopsOfBatch, RoundsFit
from lightning_lottery.preflight import Prepared
from lightning_lottery.rounds.checks import (
    check_finite,
    check_no_batches_seen,
    check_parameters,
    check_something_left,
    check_steps,
    has_changed,
    warn_if_added,
    warn_if_repeated,
)
from lightning_lottery.rounds.last_ticket import LastTicket
from lightning_lottery.rounds.next_ticket import NextTicket
from lightning_lottery.rounds.recorder import Recorder
from lightning_lottery.rounds.rewind_point import RewindPoint
from lightning_lottery.rounds.round import Round
from lightning_lottery.rounds.swapped_weights import check_zeros
from lightning_lottery.rules import Plan, Settings, ending_rule
from lightning_lottery.storage import BatchFlops, Records, RunState
from lightning_lottery.tickets import TICKET_BRANCH, RoundId, Ticket

# Batches without a backward pass, after which their operations count as unknown.
_MOST_COUNTED = 10


@dataclass
class Run:
    """Trains the rounds of a run. :func:`start.begin_run` and :func:`start.resume_run` make it.

    Between two rounds, :meth:`advance` does this, in this order:

    1. The finished round is recorded, on disk first.
    2. Stop rules may shorten the plan.
    3. The ticket of the next round is made: masks from the trained weights, or a control from its ticket. What
       search rounds have found is read again.
    4. Network and Trainer return to the rewind point, with the ticket's weights.
    5. The next round begins: its ticket is written, its masks are applied, its loggers are opened.

    Attributes:
        prepared: What was known before training.
        fit: The Trainer.
        records: The records of all finished rounds.
        recorder: Writes them, to disk, loggers and screen.
        rewind_point: What rounds return to.
        tickets: Makes the tickets.
        last_ticket: The trained weights of the last ticket, for the end of the fit.
        plan: Everything to train, in order.
        round: The round that is training.
        flop_counter: Counts the operations of a batch while it trains.
        batches_counted: The number of batches whose operations were counted.
        is_between_rounds: Whether the next round is being prepared. Checkpoints then contain no moment of a round.
    """

    prepared: Prepared
    fit: RoundsFit
    records: Records
    recorder: Recorder
    rewind_point: RewindPoint
    tickets: NextTicket
    last_ticket: LastTicket
    plan: Plan
    round: Round
    flop_counter: FlopsOfBatch | None = None
    batches_counted: int = 0
    is_between_rounds: bool = False

    def advance(self) -> bool:
        """Finishes the current round and prepares the next one.

        Returns:
            Whether there is a next round.

        Raises:
            TrainingError: The run cannot continue, for example because weights that must be ranked are NaN, a
                prunable parameter was replaced, or the monitored metric was never logged.
        """
        self.fit.stop_on_sigterm()
        ticket = self._finish_round()
        self.close()
        if ticket is None:
            self.last_ticket.restore()
            self.recorder.close()
            return False
        settings = self.prepared.settings
        self.is_between_rounds = True
        self.rewind_point.rewind(ticket, settings.same_data_order)
        self.round = Round.begin(ticket, self.prepared.module, self.fit, settings, self.prepared.folder)
        self.is_between_rounds = False
        return True

    def _finish_round(self) -> Ticket | None:
        """Records the finished round and makes the ticket of the next; ``None`` if no round follows."""
        progress, finished = self.fit.progress, self.round
        finished.metric.observe(self.fit.trainer)
        if not self._has_stepped():
            check_no_batches_seen(finished.name, progress.has_seen_batches())
            self.recorder.say("The round has trained no steps, so nothing is pruned.")
            return None
        if progress.time_is_up() and not progress.is_complete():
            self.recorder.say(f"max_time ran out during {finished.name}, which is not recorded.")
            return None
        if self._is_first:
            self._leave_out_copies()
        self._record()
        check_parameters(finished.name, self.prepared.module, self.tickets.masks.parameters)
        if self._is_first:
            self.rewind_point.finish()
        self._shorten_plan()
        if finished.id == self.plan.last_ticket:
            self.last_ticket.save()
        if progress.time_is_up():
            self.recorder.say("max_time has run out: no further round.")
            return None
        following = self.plan.after(finished.id)
        if following is None:
            return None
        finished.masking.release()  # frees memory before the next ticket is made
        return self._next_ticket(following)

    def _next_ticket(self, following: RoundId) -> Ticket:
        """Makes the next ticket, and writes the one that the trained weights give, if it is another."""
        finished, folder = self.round, self.prepared.folder
        found = self.plan.finds(finished.id)
        if found == following:
            return self.tickets.make(following, finished)
        if found is not None:  # the search is over, and the tickets of earlier rounds train first
            folder.write_ticket(folder.ticket_name(found), self.tickets.make(found, finished))
        return self.tickets.make(following, None)

    @property
    def _is_first(self) -> bool:
        return self.round.id == self.plan.first

    def _has_stepped(self) -> bool:
        """Whether the round has trained at least one step."""
        progress = self.fit.progress
        if progress.steps() == 0:
            return False
        return not progress.has_uncounted_steps() or has_changed(self.prepared.module, self.round.start.weights())

    def _record(self) -> None:
        """Records the finished round."""
        module, monitor = self.prepared.module, self.prepared.settings.monitor
        check_zeros(self.round.name, self.round.masking)
        check_finite(self.round.name, module, monitor, self.fit.trainer.callback_metrics)
        path = self.prepared.folder.ticket_name(self.round.id)
        record = self.round.record(self.fit, module, path, self.prepared.description.flops)
        self.recorder.add(record)
        control = self.prepared.settings.branches.get(record.branch)
        if control is not None and control.other_data_order:
            warn_if_repeated(record, self.records[TICKET_BRANCH][record.round])

    def _shorten_plan(self) -> None:
        """Applies stop rules, and says so."""
        settings = self.prepared.settings
        before, self.plan = self.plan, shortened(self.plan, settings, self.records, self.fit)
        if self.plan != before:
            self.prepared = self.prepared.described(plan=self.plan.names)
        is_ended = self.plan.last_ticket.number < settings.sizes.last_round
        if is_ended and self.round.id.is_ticket:
            what = "search" if settings.search is None else "run"
            self.recorder.say(f"No further ticket: {ending_rule(settings, self.records)!r} ended the {what}.")
            if settings.controls and not self.plan.has_controls:
                self.recorder.say("No control either: control_rounds contains only rounds that were not trained.")

    def end_epoch(self) -> None:
        """Checks that pruned weights are zero, and applies stop rules to the mask that would follow."""
        current, settings = self.round, self.prepared.settings
        self._stop_counting()  # on_train_batch_start may have ended the epoch
        check_parameters(current.name, self.prepared.module, self.tickets.masks.parameters)
        current.masking.check()
        if self._is_first:
            self._check_first_round()
        window = max((rule.window for rule in settings.stop), default=0)
        if not window:
            return
        number = current.id.number
        if current.id.is_control:  # it trains as long as its ticket
            current.is_cut_short = self.fit.progress.steps() >= self._steps_of_ticket()
        elif self._may_be_cut_short():
            masks = self.tickets.masks.make(number + 1, current.masks, current.start.weights(), is_final=False)
            seen = current.see_masks(masks, window)
            settled = any(rule.after_epoch(seen, current.prunable_masks) for rule in settings.stop)
            current.is_cut_short |= settled and not (number == 0 and self.rewind_point.is_waiting)
        if current.is_cut_short:
            self.fit.trainer.should_stop = True

    def _may_be_cut_short(self) -> bool:
        """Whether a stop rule may end this round when the masks that follow from it are clear."""
        current = self.round.id
        if self.plan.finds(current) is None or not self.tickets.masks.removes(current.number + 1):
            return False
        # With search rounds, the tickets train fully, and round 0 with them.
        return current.is_search or self.prepared.settings.search is None

    def _steps_of_ticket(self) -> float:
        """The step at which a stop rule has ended the ticket of this control; infinite if none has."""
        settings, entry = self.prepared.settings, self.round.id
        ended = [record for record in self.records if record.id == entry.ticket and record.was_cut_short]
        if not ended:
            return math.inf
        if not settings.branches[entry.branch].from_init:
            return ended[0].steps
        # From initialisation it also takes the steps up to the rewind point. Fine-tuning has another schedule.
        return math.inf if settings.rewind.length is not None else max(ended[0].steps, ended[0].last_step)

    def _check_first_round(self) -> None:
        """Checks after each epoch of the first round what cannot be checked before training."""
        self._leave_out_copies()
        start, module, settings = self.round.start, self.prepared.module, self.prepared.settings
        if self.fit.progress.has_uncounted_steps():
            if self.rewind_point.waits_for_steps:
                check_steps(
                    f"The rewind point of {settings.rewind!r}", "rewind='2 epochs'", module, start.weights()
                )
            if settings.search is not None and settings.search.unit == "steps":
                check_steps(f"search='{settings.search}'", "search='2 epochs'", module, start.weights())
        if self.fit.trainer.current_epoch == 0:
            warn_if_added(self.round.name, module, start.weights())

    def _leave_out_copies(self) -> None:
        """Stops pruning parameters that turn out to be copies of trained weights."""
        module, known = self.prepared.module, self.tickets.masks.parameters
        found = self.round.find_copies(module, self.tickets.copies, self.fit)
        names = [name for name in known if name in found]
        if not names and not any(found.values()):
            return
        check_something_left(self.round.name, names, known)
        self.round.leave_out(names)
        self.rewind_point.leave_out(names)
        self.tickets.leave_out(found)
        left = self.tickets.masks
        shapes = {name: list(parameter.shape) for name, parameter in left.parameters.items()}
        self.prepared = self.prepared.described(prunable=shapes, counts=left.counts, copies=self.tickets.copies)
        if names:
            self.recorder.say(
                f"Not pruned from now on: {names}. They change without a gradient, so they are copies."
            )

    def save_rewind_point(self, between_epochs: bool) -> None:
        """Saves the rewind point if round 0 has reached it."""
        if self._is_first:
            self.rewind_point.save_if_reached(between_epochs)

    def end_batch(self) -> None:
        """Saves the rewind point again after all hooks of its batch, and ends a search round."""
        if self._is_first:
            self.rewind_point.save_again()
        self.fit.validate_at_end_of_search_round()

    def note_inputs(self, batch: Any) -> None:
        """Notes the shape of the inputs, for figures."""
        if self.prepared.description.input_shape is None:
            shapes = [list(part.shape[1:]) for part in tree_leaves(batch) if isinstance(part, Tensor)]
            self.prepared = self.prepared.described(input_shape=shapes[0] if shapes else [])

    def start_counting(self) -> None:
        """Counts the operations of a batch, if they are unknown."""
        self._stop_counting()
        if self.prepared.description.flops is not None:
            return
        if FlopsOfBatch.can_count(self.prepared.module):
            self.flop_counter = FlopsOfBatch(self.tickets.masks.parameters)
        else:
            self.prepared = self.prepared.described(flops=BatchFlops())

    def stop_counting(self) -> None:
        """Notes the operations of the first batch that had a backward pass. Call it after its step."""
        if (counted := self._stop_counting()) is None:
            return
        self.batches_counted += 1
        if counted.has_gradients:
            self.prepared = self.prepared.described(flops=counted.result(self.fit.trainer.world_size))
        elif self.batches_counted == _MOST_COUNTED:
            self.prepared = self.prepared.described(flops=BatchFlops())

    def _stop_counting(self) -> FlopsOfBatch | None:
        counted, self.flop_counter = self.flop_counter, None
        if counted is not None:
            counted.stop()
        return counted

    def note_checkpoint(self, path: str, is_whole: bool) -> None:
        """Records the path of a checkpoint that was written; ``is_whole`` if training can continue from it."""
        folder = self.prepared.folder
        if not self.fit.trainer.interrupted and not self.is_between_rounds:
            step, best = self.fit.trainer.global_step, self.round.metric.curve.best
            best_step = None if best is None else best[0]
            folder.note_checkpoint(path, self.round.name, step, best_step, is_whole)
            if folder.is_writer and is_whole:
                self.fit.checkpoints.note_saved(path)

    def state(self) -> RunState:
        """The state of the run for a checkpoint."""
        prepared = self.prepared
        run = prepared.description.run
        return self.round.state(run, prepared.folder, prepared.module, self.fit, not self.is_between_rounds)

    def close(self, status: str = "success") -> None:
        """Closes the loggers and hooks of the current round. May be called twice."""
        self._stop_counting()
        self.fit.loggers.leave(status)
        self.round.release()


def shortened(plan: Plan, settings: Settings, records: Records, fit: RoundsFit) -> Plan:
    """The plan after stop rules. Process 0 decides, since metrics may differ between processes."""
    made: Plan = fit.trainer.strategy.broadcast(plan.shortened(settings, records))
    return made
