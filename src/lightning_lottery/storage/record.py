"""The record of one finished training, and how values of its metric compare."""

from dataclasses import asdict, dataclass, field, replace
from math import isfinite, isnan, nan
from typing import Any

from lightning_lottery.plain import finite
from lightning_lottery.tickets import RoundId


@dataclass(frozen=True)
class RoundRecord:
    """The record of one finished training.

    Attributes:
        round: Number of prunings before it; 0 is dense.
        branch: ``"ticket"``; ``"search"`` for a short round that only looked for the next mask; or the name of the
            control.
        density: kept / prunable, in (0, 1].
        kept: Surviving prunable weights.
        prunable: Prunable weights.
        parameters: All parameters of the network, prunable or not.
        metrics: The last value of every scalar that the LightningModule logged.
        best_value: Best value of the monitored metric in the round; ``None`` without ``monitor``.
        best_step: ``global_step`` at that value, the early-stopping iteration of the papers.
        curve: The monitored metric over the round: pairs of ``global_step`` and value, one for each validation and
            for each end of an epoch that has a new value. Empty without ``monitor``, and in records of older
            versions.
        steps: Optimizer steps of the round; batches if Lightning counts no steps, as with
            ``optimizers(use_pl_optimizer=False)``.
        last_step: ``global_step`` at the end; -1 in records of older versions.
        seconds: Duration of the round, validation included.
        masks_hash: Fingerprint of the masks; equal masks have equal fingerprints.
        ticket_path: Path of the ticket file, relative to the run folder.
        saved_steps: Steps that were saved because a stop rule ended the round.
        is_cut_short: Whether a stop rule ended the round before the Trainer's limits. Even then,
            ``saved_steps`` is 0 if the full length is unknown, as for data without a length.
        logged_steps: Step at the end of the round for loggers whose steps must not fall.
        kept_by_layer: Surviving weights of each prunable parameter, by name; empty in records of older versions.
        flops: Floating-point operations of all forward and backward passes of the round, in matrix products and
            convolutions of dense weights, over all processes: those of one batch times the number of batches.
            ``None`` if unknown.
        sparse_flops: The same without the operations of pruned weights, which only sparse kernels would save.
    """

    round: int
    branch: str
    density: float
    kept: int
    prunable: int
    parameters: int
    metrics: dict[str, float] = field(default_factory=dict)
    best_value: float | None = None
    best_step: int | None = None
    curve: tuple[tuple[int, float], ...] = ()
    steps: int = 0
    last_step: int = -1
    seconds: float = 0.0
    masks_hash: str = ""
    ticket_path: str = ""
    saved_steps: int = 0
    logged_steps: int = 0
    is_cut_short: bool = False
    kept_by_layer: dict[str, int] = field(default_factory=dict)
    flops: int | None = None
    sparse_flops: int | None = None

    @property
    def id(self) -> RoundId:
        """The training that this is the record of."""
        return RoundId(self.round, self.branch)

    @property
    def was_cut_short(self) -> bool:
        """Whether a stop rule ended the round. Records of older versions only contain the saved steps."""
        return self.is_cut_short or self.saved_steps > 0

    def first_reached(self, value: float, mode: str) -> int | None:
        """Finds when the monitored metric first reached a value.

        Args:
            value: The value to reach.
            mode: ``"max"`` if larger values are better, ``"min"`` if smaller ones are.

        Returns:
            ``global_step`` of the first point of the curve that is at least as good, up to rounding; ``None`` if
            there is none.
        """
        for step, seen in self.curve:
            if not isnan(seen) and not is_better(value, seen, mode, by=rounding(value)):
                return step
        return None


def record_of(values: dict[str, Any]) -> RoundRecord:
    """Makes a record from the values of a line in ``rounds.jsonl``."""
    if "ticket" in values:  # its name in run folders of earlier versions
        values["ticket_path"] = values.pop("ticket")
    record = RoundRecord(**values)
    metrics = {name: number(value) for name, value in record.metrics.items()}
    best = None if record.best_value is None else float(record.best_value)
    curve = tuple((int(step), number(value)) for step, value in record.curve)
    return replace(record, metrics=metrics, best_value=best, curve=curve)


def record_values(record: RoundRecord) -> dict[str, Any]:
    """The values of a record for a line in ``rounds.jsonl``."""
    return {name: finite(value) for name, value in asdict(record).items()}


def number(value: Any) -> float:
    """Undoes :func:`finite` for one number."""
    return nan if value is None else float(value)


class Curve:
    """The monitored metric over one round.

    Attributes:
        points: Pairs of step and value.

    Args:
        mode: ``"min"`` or ``"max"``.
    """

    def __init__(self, mode: str) -> None:
        self._mode = mode
        self.points: list[tuple[int, float]] = []

    def observe(self, value: float, step: int) -> None:
        """Adds a value, unless it is the last one seen again at the same step."""
        if not self.points or repr(self.points[-1]) != repr((step, value)):  # NaN is not equal to itself
            self.points.append((step, value))

    @property
    def best(self) -> tuple[int, float] | None:
        """The first step with the best value, and that value. NaN is never the best."""
        best: tuple[int, float] | None = None
        for step, value in self.points:
            if not isnan(value) and (best is None or is_better(value, best[1], self._mode)):
                best = step, value
        return best


def is_better(first: float, second: float, mode: str, by: float = 0.0) -> bool:
    """Whether a value of a metric is better than another one.

    Args:
        first: The one value. NaN is never better.
        second: The other value. Nothing is better than NaN.
        mode: ``"max"`` if larger values are better, ``"min"`` if smaller ones are.
        by: How much better it must at least be, exclusive.
    """
    return (first - second if mode == "max" else second - first) > by


def rounding(*values: float) -> float:
    """How far apart values are that differ only by the rounding of single precision, where 0.9 is 0.89999998."""
    return 1e-6 * max((abs(value) for value in values if isfinite(value)), default=0.0)
