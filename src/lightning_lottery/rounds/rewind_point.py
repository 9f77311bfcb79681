"""The rewind point: what later rounds start from, saved while round 0 trains."""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from torch import nn

from lightning_lottery._lightning import RoundsFit
from lightning_lottery.errors import ConfigurationError, LotteryError, TrainingError
from lightning_lottery.notices import warn
from lightning_lottery.rules import Point, Rewind
from lightning_lottery.storage import RunFolder, round_name
from lightning_lottery.tickets import ModuleState, Ticket, starting_values


class RewindPoint:
    """The weights and the schedule that a rewinding rule returns to.

    They are written to the run folder as soon as they are known: the weights as a dense ticket in
    ``rewind.safetensors``, everything else as plain values in ``rewind.pt``.

    Attributes:
        dense: The dense ticket with the weights to return to; until they are known, with the initial weights.

    Args:
        rule: The rewinding rule.
        fit: The Trainer, before round 0.
        module: The network, with its initial weights.
        folder: The run folder.
        dense: The dense ticket with the initial weights.

    After the constructor call :meth:`begin` or :meth:`restore`.
    """

    def __init__(self, rule: Rewind, fit: RoundsFit, module: nn.Module, folder: RunFolder, dense: Ticket) -> None:
        self._rule, self._fit, self._module, self._folder = rule, fit, module, folder
        self.dense = dense
        self._initial = self._state = ModuleState.of(module)
        self._kept: dict[str, ModuleState] = {}  # the states that rounds start from if weights are not rewound
        self._point: dict[str, Any] | None = None
        self._pending: dict[str, Point] = {}
        self._reached: set[str] = set()  # in the hooks of the current batch
        # At the start of each round, without same_data_order.
        self._generators: dict[str, list[dict[str, Any]]] = {}

    def begin(self) -> None:
        """Resolves the points of the rule. The Trainer must have loaded its data.

        Raises:
            ConfigurationError: A round does not reach a point, or manual optimization does not allow the rule.
        """
        if not self._fit.trainer.fast_dev_run:  # type: ignore[attr-defined]  # its one step reaches no later point
            wanted = {"weights": self._rule.weights, "schedule": self._rule.schedule}
            late = {name: point for name, point in wanted.items() if point is not None and point.amount}
            self._pending = {name: self._resolve(point) for name, point in late.items()}
        by_hand = not self._fit.trainer.lightning_module.automatic_optimization
        if self._rule.length is not None and by_hand and self._fit.trainer.lr_scheduler_configs:
            raise ConfigurationError(
                f"{self._rule} trains without schedulers, but with manual optimization the LightningModule steps "
                "them itself. Leave out the schedulers, or use another rule."
            )

    def _resolve(self, point: Point) -> Point:
        steps = self._fit.progress.steps_per_round()
        resolved = point.resolve(steps)
        length = steps if resolved.unit == "steps" else self._fit.progress.epochs_per_round()
        if resolved.amount >= length:
            raise ConfigurationError(
                f"The rewind point '{point}' is not before the end of a round of {length:g} {resolved.unit}. "
                "Write an earlier point, or use longer rounds."
            )
        return resolved

    def leave_out(self, names: Collection[str]) -> None:
        """Removes parameters from the masks of the dense ticket."""
        masks = {name: mask for name, mask in self.dense.masks.items() if name not in names}
        self.dense = replace(self.dense, masks=masks)
        self.write()

    def write(self) -> None:
        """Writes everything known so far to the run folder."""
        self._folder.write_ticket("rewind.safetensors", self.dense)
        state = {
            "start": self._fit.start(),
            "initial": vars(self._initial),
            "module": vars(self._state),
            "kept": {name: vars(kept) for name, kept in self._kept.items()},
            "point": self._point,
            "pending": {name: [point.amount, point.unit] for name, point in self._pending.items()},
            "generators": self._generators,
        }
        self._folder.write_state("rewind.pt", state)

    def check(self) -> None:
        """Warns if the written state could not be read by another process."""
        try:
            if self._folder.is_writer:
                self._folder.read_state("rewind.pt")
        except LotteryError as error:
            warn(
                "This run cannot be resumed if it is interrupted. Let state_dict and get_extra_state of "
                f"callbacks, modules and data modules return only plain values and tensors. ({error})"
            )

    def restore(self) -> None:
        """Restores the state that another process has written, also of the Trainer."""
        state = self._folder.read_state("rewind.pt")
        self._fit.restore_start(state["start"])
        self._initial, self._state = ModuleState(**state["initial"]), ModuleState(**state["module"])
        self._kept = {name: ModuleState(**kept) for name, kept in state["kept"].items()}
        self._point, self._generators = state["point"], state["generators"]
        self._pending = {name: Point(*point) for name, point in state["pending"].items()}
        self.dense = self._folder.read_ticket("rewind.safetensors").to(self.dense.weights)

    @property
    def waits_for_steps(self) -> bool:
        """Whether round 0 has not reached a point that is given in optimizer steps."""
        return any(point.unit == "steps" for point in self._pending.values())

    @property
    def is_waiting(self) -> bool:
        """Whether round 0 has not reached a point that later rounds return to."""
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
        if "weights" in reached:
            self._keep_weights()
        if "schedule" in reached:
            self._point = self._fit.point()
        if reached:
            self.write()

    def _is_reached(self, point: Point, between_epochs: bool) -> bool:
        trainer = self._fit.trainer
        if point.unit == "epochs":
            return between_epochs and trainer.current_epoch >= point.amount
        return trainer.global_step >= point.amount

    def _keep_weights(self) -> None:
        self.dense = replace(self.dense, weights=starting_values(self._module))
        self._state = ModuleState.of(self._module)

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
            self._keep_weights()
            self.write()

    def next_ticket(self, **changes: Any) -> Ticket:
        """Makes the ticket of the next round: new masks with the weights that the rule returns to."""
        if self._rule.weights is None:
            changes["weights"] = starting_values(self._module)
            now, number = ModuleState.of(self._module), changes["round"]
            # Keep the state of the finished round: it restarts if the process ends before the ticket is written.
            kept = {name: state for name, state in self._kept.items() if name == str(number - 1)}
            self._kept = {**kept, str(number): replace(self._initial, buffers=now.buffers, extra=now.extra)}
            self.write()
        return replace(self.dense, **changes)

    def rewind(self, ticket: Ticket, same_data_order: bool) -> None:
        """Rewinds network and Trainer to the start of a round."""
        if not same_data_order:
            self._continue_generators(round_name(ticket.round, ticket.branch))
        is_dense = ticket.round == 0
        state = self._initial if is_dense else self._kept.get(str(ticket.round), self._state)
        state.restore(self._module)
        ticket.apply(self._module)
        point, length = (None, None) if is_dense else (self._point, self._rule.length)
        self._fit.rewind(same_data_order, point, self._rule.fresh_optimizer, length)

    def _continue_generators(self, name: str) -> None:
        """Saves the random generators, or restores them if the round was started before."""
        if name in self._generators:
            self._fit.restore_generators(self._generators[name])
        else:
            self._generators[name] = self._fit.generators()
            self.write()

    def fine_tune(self, number: int) -> None:
        """Sets the length of a resumed round as the rule requires."""
        if number > 0 and self._rule.length is not None:
            self._fit.fine_tune(*self._rule.length)
