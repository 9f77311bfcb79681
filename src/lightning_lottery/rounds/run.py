"""A run: round after round on one Trainer, then the controls."""

from dataclasses import replace
from typing import Any

from lightning.pytorch import LightningModule

from lightning_lottery._lightning import RoundsFit
from lightning_lottery.errors import TrainingError
from lightning_lottery.masks import fingerprint
from lightning_lottery.pruning import Selection
from lightning_lottery.rounds.checks import (
    check_no_batches_seen,
    check_parameters,
    check_steps,
    has_changed,
    warn_if_added,
)
from lightning_lottery.rounds.follow import update_copies
from lightning_lottery.rounds.last_ticket import LastTicket
from lightning_lottery.rounds.next_masks import NextMasks, seed_of
from lightning_lottery.rounds.recorder import Recorder
from lightning_lottery.rounds.rewind_point import RewindPoint
from lightning_lottery.rounds.round import Round
from lightning_lottery.rounds.swapped_weights import ValidationWatch
from lightning_lottery.rules import Settings, first_unfinished, make_control, resume_position
from lightning_lottery.storage import TICKET_BRANCH, Records, RunFolder, RunState, round_name
from lightning_lottery.tickets import ModuleState, Ticket, dense_ticket


class Run:
    """Trains the rounds of a run.

    After the constructor call :meth:`begin` or :meth:`resume`.

    Attributes:
        round: The round that is training.
        validation: Detects weights that are swapped in for a validation.
        is_over: Whether nothing is left to train.

    Args:
        settings: The arguments.
        fit: The Trainer, whose fit loop trains rounds.
        module: The LightningModule.
        selection: The parameters that are pruned.
        folder: The run folder.
        records: Takes the record of every finished round.
    """

    round: Round

    def __init__(
        self,
        settings: Settings,
        fit: RoundsFit,
        module: LightningModule,
        selection: Selection,
        folder: RunFolder,
        records: Records,
    ) -> None:
        self._settings, self._fit, self._module = settings, fit, module
        self._parameters = dict(selection.parameters)
        # Excluded parameters are never changed, even if they are copies.
        self._copies = {**dict.fromkeys(selection.excluded), **selection.copies}
        self._folder, self._records = folder, records
        self._recorder = Recorder(settings, fit, folder, records)
        self._next_masks = NextMasks(settings, fit, module, self._parameters)
        self._controls = {control.branch: control for control in settings.controls}
        self._plan = settings.plan
        self._index = 0
        self._last_ticket = LastTicket(fit, module, folder)
        self._is_between_rounds = False
        self.is_over = False

    def begin(self, description: dict[str, Any]) -> None:
        """Starts a new run. The network must have its initial weights."""
        self._fit.save_start()
        dense = dense_ticket(self._module, self._parameters, self._settings.methods())
        seed: str = self._fit.trainer.strategy.broadcast(dense.provenance["seed"])  # one seed for all processes
        dense = replace(dense, provenance={**dense.provenance, "seed": seed})
        self._rewind_point = RewindPoint(self._settings.rewind, self._fit, self._module, self._folder, dense)
        self._rewind_point.begin()
        self._next_masks.try_out(dense)
        self._folder.clear()  # only after everything that may raise an error
        self._rewind_point.write()
        self._rewind_point.check()
        self._folder.write_description({**description, "counts": self._next_masks.counts, **dense.provenance})
        if not self._settings.prune_at_init:
            self._start_round(dense)
            return
        ticket = self._make_ticket(*self._plan[0])
        self._rewind_point.rewind(ticket, self._settings.same_data_order)
        self._start_round(ticket)

    def resume(self, state: RunState | None) -> None:
        """Resumes the run in the folder.

        Args:
            state: The state in the checkpoint that Lightning has loaded; ``None`` restarts the first unfinished
                round.
        """
        dense = dense_ticket(self._module, self._parameters, self._settings.methods())
        self._rewind_point = RewindPoint(self._settings.rewind, self._fit, self._module, self._folder, dense)
        self._folder.remove_leftovers()
        self._rewind_point.restore()
        for record in self._folder.read_records():
            self._records.append(record)
        self._plan = self._shortened_plan()
        unfinished = first_unfinished(self._folder, self._plan)
        state, unfinished = resume_position(state, self._plan, unfinished)
        can_resume = self._fit.can_resume_within_rounds()
        if state is not None and (reason := state.reason_to_restart(self._module, can_resume)):
            self._recorder.say(f"{state.name} restarts: {reason}.")
            state = None
        self._last_ticket.read()
        if unfinished == len(self._plan):
            self._recorder.say(f"The run in {self._folder.path} is already finished.")
            self.is_over = True
            self._finish()
            return
        self._index = unfinished
        self._recorder.say(f"Resuming the run in {self._folder.path} at {round_name(*self._plan[unfinished])}.")
        self._records.keep(self._plan[:unfinished])
        if state is None and self._records:
            self._fit.set_logged_steps(self._records[-1].logged_steps)
        self._recorder.log_again(lambda record: self._read_ticket(record.round, record.branch))
        next_one = self._plan[unfinished]
        is_made = self._folder.ticket_path(*next_one).exists()
        if not is_made and self._settings.prune_at_init and unfinished == 0:
            # Loads the data for scoring before round 1.
            self._rewind_point.rewind(self._rewind_point.dense, same_data_order=True)
        ticket = self._read_ticket(*next_one) if is_made else self._make_ticket(*next_one)
        if state is None:
            self._rewind_point.rewind(ticket, self._settings.same_data_order)
            self._start_round(ticket)
        else:
            self._resume_round(ticket, state)

    def _resume_round(self, ticket: Ticket, state: RunState) -> None:
        """Continues in the middle of a round."""
        is_dense = state.round == 0  # its masks only list the prunable parameters, which may have become fewer
        if not is_dense and fingerprint(ticket.masks) != state.masks_hash:
            raise TrainingError(
                f"The masks of {state.name} in the run folder differ from those of the checkpoint. Use another "
                "checkpoint of this run, or pass the run folder as ckpt_path to restart the round."
            )
        if not state.moment["is_exact"]:
            self._recorder.say(
                "The checkpoint was written during an interrupted batch, so this batch is repeated."
            )
        self._rewind_point.fine_tune(ticket.round)
        ModuleState(**state.module).restore(self._module)
        self._fit.restore_moment(state.moment)
        self._start_round(ticket)
        self.round.restore(state, self._module, self._parameters)

    def state(self) -> RunState:
        """The state of the run for a checkpoint."""
        return self.round.state(self._folder, self._module, self._fit, not self._is_between_rounds)

    def end_epoch(self) -> None:
        """Checks that pruned weights are zero, and applies stop rules to the mask that would follow."""
        training, number = self.round, self.round.ticket.round
        check_parameters(training.name, self._module, self._parameters)
        training.masking.check()
        if self._index == 0:
            self._check_first_round()
        window = max((rule.window for rule in self._settings.stop), default=0)
        if not window:
            return
        if training.ticket.branch != TICKET_BRANCH:  # a control trains as long as its ticket
            ticket = self._records[TICKET_BRANCH].get(number)
            training.is_cut_short = (
                ticket is not None and ticket.was_cut_short and self._fit.progress.steps() >= ticket.steps
            )
        elif number < self._settings.sizes.last_round:
            masks = self._next_masks.make(number + 1, training.ticket, is_final=False)
            training.masks_seen = [*training.masks_seen, masks][-window:]
            settled = any(r.after_epoch(training.masks_seen, training.ticket.masks) for r in self._settings.stop)
            training.is_cut_short |= settled and not (number == 0 and self._rewind_point.is_waiting)
        if training.is_cut_short:
            self._fit.trainer.should_stop = True

    def _leave_out_copies(self) -> None:
        """Stops pruning parameters that turn out to be copies of trained weights."""
        parameters, fit, folder = self._parameters, self._fit, self._folder
        found = self.round.leave_out_copies(self._module, parameters, self._copies, fit, folder)
        if found is None:
            return
        self._rewind_point.leave_out(found)
        self._next_masks = NextMasks(self._settings, fit, self._module, parameters)
        shapes = {name: list(parameter.shape) for name, parameter in parameters.items()}
        folder.update_description(prunable=shapes, counts=self._next_masks.counts, copies=self._copies)
        if found:
            self._recorder.say(
                f"Not pruned from now on: {found}. They change without a gradient, so they are copies."
            )

    def _check_first_round(self) -> None:
        """Checks after each epoch of the first round what cannot be checked before training."""
        self._leave_out_copies()
        name, start = self.round.name, self.round.ticket.weights
        if self._rewind_point.waits_for_steps and self._fit.progress.has_uncounted_steps():
            check_steps(self._settings.rewind, self._module, start)
        if self._fit.trainer.current_epoch == 0:
            warn_if_added(name, self._module, start)

    def save_rewind_point(self, between_epochs: bool) -> None:
        """Saves the rewind point if round 0 has reached it."""
        if self._index == 0:
            self._rewind_point.save_if_reached(between_epochs)

    def save_rewind_point_again(self) -> None:
        """Saves the rewind point again after all hooks of its batch."""
        if self._index == 0:
            self._rewind_point.save_again()

    def note_checkpoint(self, path: str) -> None:
        """Records the path of a checkpoint that was written."""
        if not self._fit.trainer.interrupted and not self._is_between_rounds:
            self._folder.note_checkpoint(path, self.round.name)
            if self._folder.is_writer:
                self._fit.checkpoints.note_saved(path)

    def advance(self) -> bool:
        """Finishes the current round and prepares the next one.

        Returns:
            Whether there is a next round.

        Raises:
            TrainingError: The run cannot continue, for example because weights that must be ranked are NaN, a
                prunable parameter was replaced, or the monitored metric was never logged.
        """
        self._fit.stop_on_sigterm()
        ticket = self._next_ticket()
        self.close()
        if ticket is None:
            self._finish()
            return False
        self._is_between_rounds = True
        self._rewind_point.rewind(ticket, self._settings.same_data_order)
        self._start_round(ticket)
        self._is_between_rounds = False
        return True

    def _next_ticket(self) -> Ticket | None:
        """Records the finished round and makes the ticket of the next; ``None`` if there is no next round."""
        fit, training = self._fit, self.round.ticket
        self.round.observe_metric(fit, self._settings.monitor)
        stepped = fit.progress.steps() > 0 and not (
            fit.progress.has_uncounted_steps() and not has_changed(self._module, training.weights)
        )
        if not stepped:
            check_no_batches_seen(self.round.name, fit.progress.has_seen_batches())
            self._recorder.say("The round has trained no steps, so nothing is pruned.")
            return None
        if fit.progress.time_is_up() and not fit.progress.is_complete():
            self._recorder.say(f"max_time ran out during {self.round.name}, which is not recorded.")
            return None
        if self._index == 0:
            self._leave_out_copies()
        self._record()
        check_parameters(self.round.name, self._module, self._parameters)
        if self._index == 0:
            self._rewind_point.finish()
        self._plan = self._shortened_plan()
        last = max(number for number, branch in self._plan if branch == TICKET_BRANCH)
        if last < self._settings.sizes.last_round and self.round.ticket.branch == TICKET_BRANCH:
            self._recorder.say(f"No further ticket: {self._settings.ending(self._records)!r} ended the search.")
            if self._settings.controls and len(self._plan) == self._index + 1:
                self._recorder.say("No control either: control_rounds contains only rounds that were not trained.")
        if self._plan[self._index] == (last, TICKET_BRANCH):
            self._last_ticket.save()
        if fit.progress.time_is_up():
            self._recorder.say("max_time has run out: no further round.")
            return None
        self._index += 1
        return None if self._index == len(self._plan) else self._make_ticket(*self._plan[self._index])

    def _shortened_plan(self) -> list[tuple[int, str]]:
        """The plan after stop rules. Process 0 decides, since metrics may differ between processes."""
        plan: list[tuple[int, str]] = self._fit.trainer.strategy.broadcast(
            self._settings.plan_after(self._records)
        )
        return [(number, branch) for number, branch in plan]

    def close(self, status: str = "success") -> None:
        """Closes the loggers and hooks of the current round. May be called twice."""
        if not self.is_over:
            self._fit.loggers.leave(status)
            self.round.release()
            self.validation.release()

    def _make_ticket(self, number: int, branch: str) -> Ticket:
        """Makes the ticket of a round from the trained weights of the previous round."""
        if number == 0:
            return self._rewind_point.dense
        if branch == TICKET_BRANCH:
            before = self.round.ticket if self._index else self._rewind_point.dense
            ticket = self._rewind_point.next_ticket(masks=self._next_masks.make(number, before), round=number)
            return update_copies(ticket, self._rewind_point.dense, self._copies)
        dense = self._rewind_point.dense
        seed = seed_of(dense, branch, number)
        control, ticket = self._controls[branch], self._read_ticket(number, TICKET_BRANCH)
        made = make_control(control, ticket, dense, self._module, seed)
        return update_copies(replace(made, round=number, branch=branch), dense, self._copies)

    def _read_ticket(self, number: int, branch: str) -> Ticket:
        """Reads a ticket from the run folder and moves it to the devices of the network."""
        return self._folder.read_ticket(self._folder.ticket_name(number, branch)).to(
            self._rewind_point.dense.weights
        )

    def _start_round(self, ticket: Ticket) -> None:
        """Starts a round. Its weights must be in place."""
        fit, folder = self._fit, self._folder
        name, masks_hash = round_name(ticket.round, ticket.branch), fingerprint(ticket.masks)
        if len(set(hashes := fit.gather(masks_hash))) > 1:
            raise TrainingError(
                f"The masks of {name} differ between the processes: {', '.join(hashes)}. A criterion must return "
                "the same scores on every process: use context.seed for random numbers, and context.data.average "
                "for values that depend on batches."
            )
        folder.write_ticket(folder.ticket_name(ticket.round, ticket.branch), ticket)
        self.round = Round.start(ticket, masks_hash, self._parameters, fit, self._settings)
        self.validation = ValidationWatch(
            name, self._module, self._parameters, self.round.masking, self._settings.monitor
        )
        prefix = "" if ticket.branch == TICKET_BRANCH else f"{ticket.branch}/"
        fit.enter_round(name, ticket.round, prefix)

    def _record(self) -> None:
        """Records the finished round."""
        ticket = self.round.ticket
        path = self._folder.ticket_name(ticket.round, ticket.branch)
        self.round.check_zeros()
        self.round.check_finite(self._module, self._settings.monitor, self._fit.trainer.callback_metrics)
        self._recorder.add(self.round.record(self._fit, self._module, path), ticket)

    def _finish(self) -> None:
        """Restores the trained weights of the last ticket, also after controls."""
        self._last_ticket.restore()
        self._recorder.close()
