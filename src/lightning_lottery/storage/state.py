"""The state of a run: in a checkpoint, and in the state files of the run folder."""

from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn

from lightning_lottery.storage.fit_state import FitEnd, FitMoment, FitPoint, FitStart, GeneratorState, SearchLength
from lightning_lottery.storage.plain_values import State, from_plain
from lightning_lottery.tickets import ModuleState, RoundId


@dataclass(frozen=True)
class RunState(State):
    """The callback's state in a checkpoint.

    Masks, starting weights and records are in the run folder. A checkpoint cannot be resumed without it.

    Attributes:
        run: The id of the run, as in its ``lottery.json``.
        folder: The run folder.
        round: The number of the round that was training.
        branch: Its branch.
        masks_hash: Fingerprint of its masks.
        curve: The monitored metric over the round so far.
        seconds: Duration of the round so far.
        masks_seen: The masks that pruning after each of the last epochs would have given, packed to bits.
        is_cut_short: Whether a stop rule has ended the round.
        module: The state of the network that is missing in Lightning's checkpoint.
        moment: The state of the fit that is missing there; ``None`` between rounds.
        without_gradient: The parameters that have had no gradient in the round so far.
    """

    run: str
    folder: str
    round: int
    branch: str
    masks_hash: str
    curve: list[tuple[int, float]]
    seconds: float
    masks_seen: list[dict[str, Tensor]]
    is_cut_short: bool
    module: ModuleState
    moment: FitMoment | None
    without_gradient: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, values: dict[str, Any]) -> "RunState":
        """Makes a state from the plain values in a checkpoint.

        Raises:
            ConfigurationError: The checkpoint was written by another version, with other values.
        """
        # Up to 0.1.0 there was an empty dictionary between rounds.
        values = {**values, "moment": values.get("moment") or None}
        if "best_step" in values:  # up to 0.1.0 instead of the curve
            step, value = values.pop("best_step"), values.pop("best_value", None)
            values["curve"] = [] if step is None else [(step, value)]
        otherwise = "pass the run folder as ckpt_path, to resume at the start of a round"
        return from_plain(cls, values, "The checkpoint", otherwise)

    @property
    def id(self) -> RoundId:
        """The round that was training."""
        return RoundId(self.round, self.branch)

    def reason_to_restart(self, module: nn.Module, can_resume_within_rounds: bool) -> str | None:
        """Why the round must restart instead of continuing at the checkpoint; ``None`` if it can continue."""
        if not can_resume_within_rounds:
            return "averages of weights cannot be resumed from a checkpoint"
        added = self.module.missing_layers(module)
        return f"the layers {added} were added during the round and are missing now" if added else None


@dataclass(frozen=True)
class PendingPoint:
    """A rewind point that round 0 has not reached yet; see ``rules.Point``."""

    amount: float
    unit: Literal["steps", "epochs", "%"]


@dataclass(frozen=True)
class RewindState(State):
    """Everything that rounds return to, besides the weights; the content of ``rewind.pt``.

    Attributes:
        start: The state of the fit that every round starts from.
        initial: The network before round 0.
        module: The network at the rewind point.
        kept: The networks that rounds start from if weights are not rewound, by number of the round.
        point: The fit at the point that the schedule returns to; ``None`` for the start.
        pending: The points that round 0 has not reached yet, by what they are for: ``weights``, ``schedule``.
        generators: The random generators at the start of each round by its name, for each process; only if rounds
            differ in their data order.
        fresh_optimizer: Whether optimizers start at the point without their per-weight state.
        from_init: The controls that start from initialisation, even if there is a later point.
        other_data_order: The controls that train with other random numbers.
        search: The length of search rounds; ``None`` for the Trainer's limits.
    """

    start: FitStart
    initial: ModuleState
    module: ModuleState
    kept: dict[str, ModuleState]
    point: FitPoint | None
    pending: dict[str, PendingPoint]
    generators: dict[str, list[GeneratorState]]
    fresh_optimizer: bool = False
    from_init: list[str] = field(default_factory=list)
    other_data_order: list[str] = field(default_factory=list)
    search: SearchLength | None = None

    def is_initial(self, entry: RoundId) -> bool:
        """Whether a round starts from initialisation, whatever the others do."""
        return entry.number == 0 or entry.branch in self.from_init

    def module_at(self, entry: RoundId) -> ModuleState:
        """The network at the start of a round."""
        return self.initial if self.is_initial(entry) else self.kept.get(str(entry.number), self.module)

    def point_at(self, entry: RoundId) -> FitPoint | None:
        """The fit at the point that a round starts from; ``None`` for the start."""
        return None if self.is_initial(entry) else self.point


@dataclass(frozen=True)
class TrainedState(State):
    """The last ticket after its training, to be restored after the controls; the content of ``last.pt``.

    Attributes:
        weights: All parameters and persistent buffers, by name.
        module: The rest of the state of the network.
        trainer: Checkpoint callbacks and metrics.
    """

    weights: dict[str, Tensor]
    module: ModuleState
    trainer: FitEnd
