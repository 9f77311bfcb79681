"""One run: round after round on one Trainer, then the controls."""

from dataclasses import replace
from typing import Any

from lightning.pytorch import LightningModule

from lightning_lottery._lightning import RoundsFit
from lightning_lottery.errors import TrainingError
from lightning_lottery.masks import fingerprint, sharding
from lightning_lottery.preflight import Settings
from lightning_lottery.pruning import Selection
from lightning_lottery.rounds.guard import check_parameters, check_steps, check_unseen, has_moved, warn_if_added
from lightning_lottery.rounds.next_masks import NextMasks, seed_of
from lightning_lottery.rounds.recorder import Recorder
from lightning_lottery.rounds.rewind_point import RewindPoint
from lightning_lottery.rounds.round import Round
from lightning_lottery.rounds.swapped_weights import ValidationWatch
from lightning_lottery.rules import first_unfinished, make_control, place_of
from lightning_lottery.storage import LAST, TICKET_BRANCH, Records, RunFolder, RunState, round_name
from lightning_lottery.tickets import ModuleState, Ticket, dense_ticket, follow, starting_values


class Run:
    """Everything between the first round and the last.

    After the constructor call :meth:`begin` or :meth:`go_on`.

    Attributes:
        round: The round that is training.
        validation: What looks at the weights that it validates.
        is_over: Whether there is nothing left to train.

    Args:
        settings: The arguments.
        fit: The Trainer, made to train rounds.
        module: The LightningModule.
        selection: What of it is pruned.
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
        # What the user has excluded is never touched, whatever it follows.
        self._copies = {**dict.fromkeys(selection.excluded), **selection.copies}
        self._folder, self._records = folder, records
        self._recorder = Recorder(settings, fit, folder, records)
        self._next_masks = NextMasks(settings, fit, module, self._parameters)
        self._controls = {control.branch: control for control in settings.controls}
        self._plan = settings.plan
        self._index = 0
        self._last: dict[str, Any] | None = None  # all of the last ticket's training, to come back to
        self._is_between_rounds = False
        self.is_over = False

    def begin(self, description: dict[str, Any]) -> None:
        """Begins with round 0; the network is at its initial weights."""
        self._fit.begin()
        dense = dense_ticket(self._module, self._parameters, self._settings.methods())
        seed: str = self._fit.trainer.strategy.broadcast(dense.provenance["seed"])  # one for all processes
        dense = replace(dense, provenance={**dense.provenance, "seed": seed})
        self._rewind_point = RewindPoint(self._settings.rewind, self._fit, self._module, self._folder, dense)
        self._rewind_point.begin()
        self._next_masks.try_out(dense)
        self._folder.clear()  # after all that may refuse
        self._rewind_point.write()
        self._rewind_point.check()
        self._folder.describe({**description, "counts": self._next_masks.counts, **dense.provenance})
        if not self._settings.prune_at_init:
            self._enter(dense)
            return
        ticket = self._make(*self._plan[0])
        self._rewind_point.return_to(ticket, self._settings.same_data_order)
        self._enter(ticket)

    def go_on(self, state: RunState | None) -> None:
        """Goes on with the run in the folder.

        Args:
            state: What the checkpoint held that Lightning has loaded; ``None`` begins the first unfinished round.
        """
        dense = dense_ticket(self._module, self._parameters, self._settings.methods())
        self._rewind_point = RewindPoint(self._settings.rewind, self._fit, self._module, self._folder, dense)
        self._folder.tidy()
        self._rewind_point.read()
        for record in self._folder.read_records():
            self._records.append(record)
        self._plan = self._shortened_plan()
        unfinished = first_unfinished(self._folder, self._plan)
        state, unfinished = place_of(state, self._plan, unfinished)
        goes_on = self._fit.goes_on_within_rounds()
        if state is not None and (reason := state.reason_to_begin_again(self._module, goes_on)):
            self._recorder.say(f"{state.name} begins again: {reason}.")
            state = None
        if self._folder.has_state(LAST):
            self._last = self._folder.read_state(LAST)
        if unfinished == len(self._plan):
            self._recorder.say(f"The run in {self._folder.path} is finished already.")
            self.is_over = True
            self._finish()
            return
        self._index = unfinished
        self._recorder.say(
            f"Going on with the run in {self._folder.path} at {round_name(*self._plan[unfinished])}."
        )
        self._records.keep(self._plan[:unfinished])
        if state is None and self._records:
            self._fit.resume_axis(self._records[-1].logged_steps)
        self._recorder.repeat(lambda record: self._ticket(record.round, record.branch))
        next_one = self._plan[unfinished]
        is_made = self._folder.ticket_path(*next_one).exists()
        if not is_made and self._settings.prune_at_init and unfinished == 0:
            # Loads the data, to score before round 1.
            self._rewind_point.return_to(self._rewind_point.dense, same_data_order=True)
        ticket = self._ticket(*next_one) if is_made else self._make(*next_one)
        if state is None:
            self._rewind_point.return_to(ticket, self._settings.same_data_order)
            self._enter(ticket)
        else:
            self._resume(ticket, state)

    def _resume(self, ticket: Ticket, state: RunState) -> None:
        """Goes on in the middle of a round."""
        is_dense = state.round == 0  # its masks say only what is pruned, which may have become less since
        if not is_dense and fingerprint(ticket.masks) != state.masks_hash:
            raise TrainingError(f"The masks of {state.name} in the run folder are not those of the checkpoint.")
        if not state.moment["is_exact"]:
            self._recorder.say(
                "The checkpoint was written when the training was interrupted, so the batch of then is repeated."
            )
        self._rewind_point.shorten(ticket.round)
        ModuleState(**state.module).restore(self._module)
        self._fit.resume(state.moment)
        self._enter(ticket)
        self.round.resume(state, self._module, self._parameters)

    def state(self) -> RunState:
        """What a checkpoint is to hold of the run."""
        return self.round.state(self._folder, self._module, self._fit, not self._is_between_rounds)

    def end_epoch(self) -> None:
        """Makes sure that pruned weights are zero, and lets stop rules look at the mask that would follow."""
        training, number = self.round, self.round.ticket.round
        check_parameters(training.name, self._module, self._parameters)
        training.masking.check()
        if self._index == 0:
            self._look_at_first_epoch()
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

    def _leave_out_followers(self) -> None:
        """Leaves out of pruning what turns out to follow trained weights while the dense round trains."""
        parameters, fit, folder = self._parameters, self._fit, self._folder
        found = self.round.leave_out_followers(self._module, parameters, self._copies, fit, folder)
        if found is None:
            return
        self._rewind_point.leave_out(found)
        self._next_masks = NextMasks(self._settings, fit, self._module, parameters)
        shapes = {name: list(parameter.shape) for name, parameter in parameters.items()}
        folder.redescribe(prunable=shapes, counts=self._next_masks.counts, copies=self._copies)
        if found:
            self._recorder.say(f"Left out of pruning: {found}. They change and have no gradient, as copies do.")

    def _look_at_first_epoch(self) -> None:
        """Looks for what would only be known when the first round has trained."""
        self._leave_out_followers()
        name, start = self.round.name, self.round.ticket.weights
        if self._rewind_point.waits_for_steps and self._fit.progress.steps_by_hand():
            check_steps(self._settings.rewind, self._module, start)
        if self._fit.trainer.current_epoch == 0:
            warn_if_added(name, self._module, start)

    def look(self, between_epochs: bool) -> None:
        """Notes the point to rewind to if round 0 has come to it."""
        if self._index == 0:
            self._rewind_point.look(between_epochs)

    def look_again(self) -> None:
        """Notes that point once more when all hooks of its batch have run."""
        if self._index == 0:
            self._rewind_point.look_again()

    def saved(self, path: str) -> None:
        """Notes that a checkpoint was written."""
        if not self._fit.trainer.interrupted and not self._is_between_rounds:
            self._folder.note_checkpoint(path, self.round.name)
            if self._folder.is_writer:
                self._fit.checkpoints.note_saved(path)

    def advance(self) -> bool:
        """Ends the round that has trained and prepares the next one.

        Returns:
            Whether there is a next one; it then stands ready.

        Raises:
            TrainingError: Weights are NaN, or the monitored metric was never logged.
        """
        self._fit.stop_on_sigterm()
        ticket = self._next_ticket()
        self.close()
        if ticket is None:
            self._finish()
            return False
        self._is_between_rounds = True
        self._rewind_point.return_to(ticket, self._settings.same_data_order)
        self._enter(ticket)
        self._is_between_rounds = False
        return True

    def _next_ticket(self) -> Ticket | None:
        """Records the round that has trained, and prunes; ``None`` if no round is to follow."""
        fit, training = self._fit, self.round.ticket
        self.round.observe(fit, self._settings.monitor)
        stepped = fit.progress.steps() > 0 and not (
            fit.progress.steps_by_hand() and not has_moved(self._module, training.weights)
        )
        if not stepped:
            check_unseen(self.round.name, fit.progress.has_seen_batches())
            self._recorder.say("The round has trained no step, so nothing is pruned.")
            return None
        if fit.progress.time_is_up() and not fit.progress.is_complete():
            self._recorder.say(f"max_time is spent in the middle of {self.round.name}, which leaves no record.")
            return None
        if self._index == 0:
            self._leave_out_followers()
        self._record()
        check_parameters(self.round.name, self._module, self._parameters)
        if self._index == 0:
            self._rewind_point.finish()
        self._plan = self._shortened_plan()
        last = max(number for number, branch in self._plan if branch == TICKET_BRANCH)
        if last < self._settings.sizes.last_round and self.round.ticket.branch == TICKET_BRANCH:
            self._recorder.say(f"No further ticket: {self._settings.ending(self._records)!r} ends the rounds.")
            if self._settings.controls and len(self._plan) == self._index + 1:
                self._recorder.say("No control either: control_rounds names only rounds that are left out.")
        if self._plan[self._index] == (last, TICKET_BRANCH):
            self._keep_last()
        if fit.progress.time_is_up():
            self._recorder.say("max_time is spent: no further round.")
            return None
        self._index += 1
        return None if self._index == len(self._plan) else self._make(*self._plan[self._index])

    def _shortened_plan(self) -> list[tuple[int, str]]:
        """What stop rules leave of the plan; process 0 decides, since metrics may differ between processes."""
        plan: list[tuple[int, str]] = self._fit.trainer.strategy.broadcast(
            self._settings.plan_after(self._records)
        )
        return [(number, branch) for number, branch in plan]

    def close(self, status: str = "success") -> None:
        """Closes the round that is training: its loggers and its hooks. May be called twice."""
        if not self.is_over:
            self._fit.loggers.leave(status)
            self.round.release()
            self.validation.release()

    def _keep_last(self) -> None:
        """Keeps the last ticket as it has trained, to come back to it after the controls."""
        if any(map(sharding.is_sharded, self._parameters.values())):
            return  # no controls then, and no going on
        self._last = {
            "weights": starting_values(self._module),
            "module": vars(ModuleState.of(self._module)),
            "trainer": self._fit.keep_final(),
        }
        self._folder.write_state(LAST, self._last)

    def _make(self, number: int, branch: str) -> Ticket:
        """Makes the ticket of a round out of what the round before has left."""
        if number == 0:
            return self._rewind_point.dense
        if branch == TICKET_BRANCH:
            before = self.round.ticket if self._index else self._rewind_point.dense
            ticket = self._rewind_point.next_ticket(masks=self._next_masks.make(number, before), round=number)
            return follow(ticket, self._rewind_point.dense, self._copies)
        dense = self._rewind_point.dense
        seed = seed_of(dense, branch, number)
        control, ticket = self._controls[branch], self._ticket(number, TICKET_BRANCH)
        made = make_control(control, ticket, dense, self._module, seed)
        return follow(replace(made, round=number, branch=branch), dense, self._copies)

    def _ticket(self, number: int, branch: str) -> Ticket:
        """A ticket that was written, on the devices of the network."""
        return self._folder.read_ticket(self._folder.ticket_name(number, branch)).to(
            self._rewind_point.dense.weights
        )

    def _enter(self, ticket: Ticket) -> None:
        """Starts a round whose weights are in place."""
        fit, folder = self._fit, self._folder
        name, masks_hash = round_name(ticket.round, ticket.branch), fingerprint(ticket.masks)
        if len(set(hashes := fit.gather(masks_hash))) > 1:
            raise TrainingError(f"The masks of {name} differ between the processes: {', '.join(hashes)}.")
        folder.write_ticket(folder.ticket_name(ticket.round, ticket.branch), ticket)
        self.round = Round.start(ticket, masks_hash, self._parameters, fit, self._settings)
        self.validation = ValidationWatch(
            name, self._module, self._parameters, self.round.masking, self._settings.monitor
        )
        prefix = "" if ticket.branch == TICKET_BRANCH else f"{ticket.branch}/"
        fit.enter_round(name, ticket.round, prefix)

    def _record(self) -> None:
        """Writes down the round that has trained."""
        ticket = self.round.ticket
        path = self._folder.ticket_name(ticket.round, ticket.branch)
        self.round.check_zeros()
        self.round.check_finite(self._module, self._settings.monitor, self._fit.trainer.callback_metrics)
        self._recorder.add(self.round.record(self._fit, self._module, path), ticket)

    def _finish(self) -> None:
        """Leaves the module with the last ticket, trained, also after controls."""
        if self._last is not None:
            ModuleState(**self._last["module"]).restore(self._module)
            Ticket(masks={}, weights=self._last["weights"]).apply(self._module)
            self._fit.restore_final(self._last["trainer"])
        self._recorder.close()
