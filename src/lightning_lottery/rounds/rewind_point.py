"""The rewind point: what later rounds start from, saved while round 0 trains."""

from collections.abc import Collection, Mapping
from dataclasses import replace

from torch import nn

from lightning_lottery._lightning import RoundsFit, RoundsLoop
from lightning_lottery.errors import ConfigurationError, TrainingError
from lightning_lottery.masks import Masks, is_sharded
from lightning_lottery.rounds.follow import update_copies
from lightning_lottery.rounds.next_masks import derived_seed
from lightning_lottery.rules import Point, Rewind, Settings
from lightning_lottery.storage import (
    REWIND_STATE,
    REWIND_WEIGHTS,
    KeptState,
    KeptTicket,
    PendingPoint,
    RewindState,
    RunFolder,
    SearchLength,
)
from lightning_lottery.tickets import ModuleState, RoundId, Ticket, starting_values

Points = dict[str, Point]  # the points that round 0 has not reached yet, for "weights" and "schedule"


class RewindPoint:
    """The weights and the schedule that a rewinding rule returns to.

    They are in the run folder, and are read when a round ends: the weights as a dense ticket in
    ``rewind.safetensors``, everything else in ``rewind.pt``.

    Attributes:
        weights: The dense ticket.

    Args:
        rule: The rewinding rule.
        fit: The Trainer.
        module: The network.
        folder: The run folder.
        state: The content of ``rewind.pt``, which exists; see :meth:`begin`.
        weights: The content of ``rewind.safetensors``, which exists.
        pending: The points that round 0 must still reach.
    """

    def __init__(
        self,
        rule: Rewind,
        fit: RoundsFit,
        module: nn.Module,
        folder: RunFolder,
        state: KeptState[RewindState],
        weights: KeptTicket,
        pending: Points,
    ) -> None:
        self._rule, self._fit, self._module, self._folder = rule, fit, module, folder
        self._state, self.weights, self._pending = state, weights, dict(pending)
        self._reached: set[str] = set()  # in the hooks of the current batch

    @classmethod
    def begin(
        cls,
        settings: Settings,
        fit: RoundsFit,
        module: nn.Module,
        folder: RunFolder,
        pending: Points,
        search: SearchLength | None,
        dense: Ticket,
    ) -> "RewindPoint":
        """Writes the point of a new run: the present state, until round 0 reaches a later one.

        Args:
            settings: The arguments.
            fit: The Trainer, before round 0.
            module: The network, with its initial weights.
            folder: The run folder.
            pending: The result of :func:`pending_points`.
            search: The result of :func:`search_length`.
            dense: The dense ticket, with the initial weights.
        """
        initial, rule, controls = ModuleState.of(module), settings.rewind, settings.branches.items()
        weights = KeptTicket(folder, REWIND_WEIGHTS, module, dense)
        state = KeptState(folder, REWIND_STATE, RewindState)
        state.write(
            RewindState(
                start=fit.start(),
                initial=initial,
                module=initial,
                kept={},
                point=None,
                pending=_stored(pending),
                generators={},
                fresh_optimizer=rule.fresh_optimizer,
                from_init=[branch for branch, control in controls if control.from_init],
                other_data_order=[branch for branch, control in controls if control.other_data_order],
                search=search,
            )
        )
        return cls(rule, fit, module, folder, state, weights, pending)

    @classmethod
    def restored(
        cls, rule: Rewind, loop: RoundsLoop, module: nn.Module, folder: RunFolder
    ) -> tuple["RewindPoint", RoundsFit]:
        """Reads the point that another process has written, and continues its fit.

        Args:
            rule: The rewinding rule.
            loop: The fit loop.
            module: The network.
            folder: The run folder.
        """
        kept, weights = KeptState(folder, REWIND_STATE, RewindState), KeptTicket(folder, REWIND_WEIGHTS, module)
        state = kept.read()
        fit = RoundsFit.restored(loop, state.start)
        pending = {name: Point(point.amount, point.unit) for name, point in state.pending.items()}
        return cls(rule, fit, module, folder, kept, weights, pending), fit

    def dense(self) -> Ticket:
        """The dense ticket with the weights to return to; until round 0 reaches them, with the initial ones."""
        return self.weights.read()

    def leave_out(self, names: Collection[str]) -> None:
        """Removes parameters from the masks of the dense ticket."""
        self.weights = self.weights.without(names)

    @property
    def waits_for_steps(self) -> bool:
        """Whether round 0 still has to reach a point given in optimizer steps."""
        return any(point.unit == "steps" for point in self._pending.values())

    @property
    def is_waiting(self) -> bool:
        """Whether round 0 must still reach a point that later rounds return to."""
        return bool(self._pending)

    def save_if_reached(self, between_epochs: bool) -> None:
        """Saves the weights or the schedule if round 0 has reached their point.

        Args:
            between_epochs: Whether an epoch has ended, including its validation and hooks.
        """
        if not self._pending or (not between_epochs and self._fit.progress.is_last_batch_of_epoch()):
            return  # the last step of an epoch counts as the end of the epoch
        reached = {name for name, point in self._pending.items() if self._is_reached(point, between_epochs)}
        for name in reached:
            del self._pending[name]
        self._save(reached)
        self._reached = set() if between_epochs else reached

    def save_again(self) -> None:
        """Saves a point again after the last hooks of its batch, which may change weights."""
        reached, self._reached = self._reached, set()
        self._save(reached)

    def _save(self, reached: set[str]) -> None:
        if not reached:
            return
        state = replace(self._state.read(), pending=_stored(self._pending))
        if "weights" in reached:
            dense = replace(self.dense(), weights=starting_values(self._module))
            self.weights = KeptTicket(self._folder, REWIND_WEIGHTS, self._module, dense)
            state = replace(state, module=ModuleState.of(self._module))
        if "schedule" in reached:
            state = replace(state, point=self._fit.point())
        self._state.write(state)

    def _is_reached(self, point: Point, between_epochs: bool) -> bool:
        trainer = self._fit.trainer
        if point.unit == "epochs":
            return between_epochs and trainer.current_epoch >= point.amount
        return trainer.global_step >= point.amount

    def finish(self) -> None:
        """Completes the rewind point after round 0.

        Raises:
            TrainingError: The round ended before a point was reached.
        """
        if self._pending:
            point = next(iter(self._pending.values()))
            raise TrainingError(
                f"Round 0 ended at step {self._fit.trainer.global_step}, before the rewind point '{point}'. Its "
                "record is kept. Write an earlier point."
            )
        if self._rule.weights is None:
            self._save({"weights"})

    def next_ticket(self, entry: RoundId, masks: Masks, copies: Mapping[str, str | None]) -> Ticket:
        """Makes the ticket of the next round: new masks with the weights that the rule returns to.

        Args:
            entry: The next round.
            masks: Its masks, on the devices of the network.
            copies: For each copy of a trained weight the name of its original, or ``None``.

        Returns:
            The ticket, on the CPU unless it is sharded.
        """
        dense = self.dense()
        weights = dense.weights
        if self._rule.weights is None:
            weights = starting_values(self._module)
            self._keep_module_state(entry.number)
        masks = {name: mask if is_sharded(mask) else mask.cpu() for name, mask in masks.items()}
        made = replace(dense, masks=masks, weights=weights, round=entry.number, branch=entry.branch)
        return update_copies(made, dense, copies)

    def _keep_module_state(self, number: int) -> None:
        """Keeps the state of the network that a round starts from, if weights are not rewound."""
        state, now = self._state.read(), ModuleState.of(self._module)
        # Keep the state of the finished round: it restarts if the process ends before the ticket is written. After
        # search rounds, earlier tickets are still to be trained.
        needs_all = state.search is not None
        kept = {name: earlier for name, earlier in state.kept.items() if needs_all or name == str(number - 1)}
        kept[str(number)] = replace(state.initial, buffers=now.buffers, extra=now.extra)
        self._state.write(replace(state, kept=kept))

    def rewind(self, ticket: Ticket, same_data_order: bool) -> None:
        """Rewinds network and Trainer to the start of a round."""
        entry, state = ticket.id, self._state.read()
        seed = _data_seed(state, ticket)
        if not same_data_order and seed is None:
            self._continue_generators(entry.name)
        state.module_at(entry).restore(self._module)
        ticket.apply(self._module)
        length = None if state.is_initial(entry) else self._rule.length
        search = state.search if entry.is_search else None
        self._fit.rewind(same_data_order, state.point_at(entry), self._rule.fresh_optimizer, length, seed, search)

    def data_seed(self, ticket: Ticket) -> int | None:
        """The seed of all random numbers in the training of a ticket, if they differ from those of round 0."""
        return _data_seed(self._state.read(), ticket)

    def _continue_generators(self, name: str) -> None:
        """Saves the random generators, or restores them if the round was started before."""
        state = self._state.read()
        if name in state.generators:
            self._fit.restore_generators(state.generators[name])
        else:
            self._state.write(replace(state, generators={**state.generators, name: self._fit.generators()}))

    def set_length(self, entry: RoundId) -> None:
        """Sets the length of a round that was resumed at a checkpoint."""
        state = self._state.read()
        if entry.is_search and state.search is not None:
            self._fit.resume_search_round(state.search, state.point_at(entry))
        if self._rule.length is not None and not state.is_initial(entry):
            self._fit.fine_tune(*self._rule.length)


def _data_seed(state: RewindState, ticket: Ticket) -> int | None:
    if ticket.branch not in state.other_data_order:
        return None
    return derived_seed(ticket.provenance["seed"], f"data of {ticket.branch}", ticket.round)


def pending_points(rule: Rewind, fit: RoundsFit) -> Points:
    """Resolves the later points of a rule. The Trainer must have loaded its data.

    Raises:
        ConfigurationError: A round does not reach a point, or manual optimization does not allow the rule.
    """
    pending: Points = {}
    if not fit.trainer.fast_dev_run:  # type: ignore[attr-defined]  # its one step reaches no later point
        wanted = {"weights": rule.weights, "schedule": rule.schedule}
        late = {name: point for name, point in wanted.items() if point is not None and point.amount}
        pending = {name: _resolved(point, fit) for name, point in late.items()}
    by_hand = not fit.trainer.lightning_module.automatic_optimization
    if rule.length is not None and by_hand and fit.trainer.lr_scheduler_configs:
        raise ConfigurationError(
            f"{rule} trains without schedulers, but with manual optimization the LightningModule steps them "
            "itself. Leave out the schedulers, or use another rule."
        )
    return pending


def _resolved(point: Point, fit: RoundsFit) -> Point:
    steps = fit.progress.steps_per_round()
    resolved = point.resolve(steps)
    length = steps if resolved.unit == "steps" else fit.progress.epochs_per_round()
    if resolved.amount >= length:
        raise ConfigurationError(
            f"The rewind point '{point}' is not before the end of a round of {length:g} {resolved.unit}. "
            "Write an earlier point, or use longer rounds."
        )
    return resolved


def _stored(pending: Points) -> dict[str, PendingPoint]:
    return {name: PendingPoint(point.amount, point.unit) for name, point in pending.items()}
