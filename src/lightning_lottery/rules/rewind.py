"""Rewinding rules: the moments that weights and schedule return to before each later round."""

import math
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from lightning_lottery.errors import ConfigurationError
from lightning_lottery.plain import check_integer, check_number, make_plain, plain

_FORMS = "'500 steps', '2 epochs', '1%' (of the steps of one round) or 'init'"


@dataclass(frozen=True)
class Point:
    """A moment of round 0.

    Attributes:
        amount: Number of units; 0 is initialisation.
        unit: ``"steps"`` of the optimizers, ``"epochs"``, or ``"%"`` of the steps of one round.
    """

    amount: float = 0
    unit: Literal["steps", "epochs", "%"] = "steps"

    def __str__(self) -> str:
        if self.amount == 0:
            return "init"
        return f"{self.amount:.15g}%" if self.unit == "%" else f"{int(self.amount)} {self.unit}"

    @classmethod
    def parse(cls, value: "str | int | Point", unit: Literal["steps", "epochs"] = "steps") -> "Point":
        """Parses a point.

        Args:
            value: A number of ``unit``, or a string such as ``"500 steps"``, ``"2 epochs"``, ``"1%"``, ``"init"``.
            unit: The unit of a plain number.

        Raises:
            ConfigurationError: The value is not a point.
        """
        if isinstance(value, Point):
            return value
        value = plain(value)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return cls(value, unit)
        if isinstance(value, str):
            if value.strip() == "init":
                return cls()
            if match := re.fullmatch(r"\s*(\d+)(?:\s*(steps?|epochs?))?\s*", value):
                return cls(int(match[1]), {None: unit, "s": "steps", "e": "epochs"}[match[2] and match[2][0]])
            if (match := re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*%\s*", value)) and 0 <= float(match[1]) < 100:
                return cls(float(match[1]), "%")
        raise ConfigurationError(f"{value!r} is not a point in training. Write for example {_FORMS}.")

    def resolve(self, steps: float) -> "Point":
        """Converts a percentage to steps.

        Args:
            steps: Optimizer steps of one round; infinite if unknown.

        Raises:
            ConfigurationError: The point is a percentage, and the number of steps is unknown.
        """
        if self.unit != "%" or self.amount == 0:
            return self
        if math.isinf(steps):
            raise ConfigurationError(
                f"The rewind point '{self}' needs the number of steps in a round, which is unknown: the data have "
                "no length, the LightningModule uses manual optimization, or accumulate_grad_batches changes. "
                "Write a number of steps, for example '500 steps'."
            )
        return Point(max(1, round(self.amount / 100 * steps)), "steps")


INIT = Point()


@dataclass(frozen=True)
class Rewind(ABC):
    """Base class of rewinding rules: what a round starts from. Write your own as a frozen dataclass.

    Each round after round 0 takes its weights from one moment of round 0, and its schedule (learning rates,
    optimizer state, data order, step and epoch counters) from the same or another moment.
    """

    @property
    @abstractmethod
    def weights(self) -> Point | None:
        """The point that weights and buffers return to; ``None`` keeps the trained values."""

    @property
    @abstractmethod
    def schedule(self) -> Point:
        """The point that the schedule returns to."""

    @property
    def length(self) -> tuple[int, float] | None:
        """Number of epochs and constant learning rate of later rounds; ``None`` follows the schedule."""
        return None

    @property
    def fresh_optimizer(self) -> bool:
        """Whether later rounds start without the optimizer state at the point."""
        return getattr(self, "optimizer", "restore") == "fresh"


@dataclass(frozen=True)
class ToInit(Rewind):
    """Weights and schedule return to initialisation (Frankle & Carbin 2018, arXiv:1803.03635)."""

    @property
    def weights(self) -> Point:
        return INIT

    @property
    def schedule(self) -> Point:
        return INIT


@dataclass(frozen=True)
class _Late(Rewind):
    """Weights and schedule return to the same later point."""

    @property
    @abstractmethod
    def weights(self) -> Point:
        """The later point that everything returns to."""

    @property
    def schedule(self) -> Point:
        return self.weights


@dataclass(frozen=True)
class ToStep(_Late):
    """Weights and schedule return to round 0 after some steps (Frankle et al. 2019, arXiv:1903.01611).

    Attributes:
        step: Optimizer steps, at least 1; or a string such as ``"500 steps"`` or ``"1%"`` of a round.
        optimizer: ``"restore"`` uses the optimizer state at the point, with zeros for pruned weights; ``"fresh"``
            starts without state, like the authors' framework.
    """

    step: int | str
    optimizer: Literal["restore", "fresh"] = "restore"

    def __post_init__(self) -> None:
        make_plain(self)
        _check_optimizer(self.optimizer)
        _check_late(self, "step", self.step, self.schedule)

    @property
    def weights(self) -> Point:
        return Point.parse(self.step, "steps")


@dataclass(frozen=True)
class ToEpoch(_Late):
    """Weights and schedule return to the end of an epoch of round 0 (Frankle et al. 2019, arXiv:1903.01611).

    Attributes:
        epoch: Complete epochs, at least 1; or a string such as ``"2 epochs"``.
        optimizer: As in :class:`ToStep`.
    """

    epoch: int | str
    optimizer: Literal["restore", "fresh"] = "restore"

    def __post_init__(self) -> None:
        make_plain(self)
        _check_optimizer(self.optimizer)
        _check_late(self, "epoch", self.epoch, self.schedule)

    @property
    def weights(self) -> Point:
        return Point.parse(self.epoch, "epochs")


@dataclass(frozen=True)
class LearningRate(Rewind):
    """Learning-rate rewinding: weights stay, the schedule is rewound (Renda et al. 2020, arXiv:2003.02389).

    Attributes:
        to: The point that the schedule returns to: steps, or a string such as ``"2 epochs"`` or ``"1%"``.
        optimizer: As in :class:`ToStep`.
    """

    to: int | str = "init"
    optimizer: Literal["restore", "fresh"] = "restore"

    def __post_init__(self) -> None:
        make_plain(self)
        _check_optimizer(self.optimizer)
        Point.parse(self.to)

    @property
    def weights(self) -> None:
        return

    @property
    def schedule(self) -> Point:
        return Point.parse(self.to)


@dataclass(frozen=True)
class FineTune(Rewind):
    """Fine-tuning: the weights stay and continue at a constant learning rate (Han et al. 2015, arXiv:1506.02626).

    Each later round is ``epochs`` long (``max_steps`` still applies), has a new optimizer and no scheduler, and
    counts its steps from 0. Except for the learning rate, the optimizer is as ``configure_optimizers`` returns it;
    note that schedulers such as ``OneCycleLR`` also set the momentum there.

    Attributes:
        epochs: Length of every later round, at least 1.
        lr: Learning rate of all parameter groups, above 0; usually the last one of round 0.
    """

    epochs: int
    lr: float

    def __post_init__(self) -> None:
        make_plain(self)
        check_integer("epochs", self.epochs, 1, "FineTune(epochs=5, lr=0.001)")
        check_number("lr", self.lr, "above 0", "FineTune(epochs=5, lr=0.001)")

    @property
    def weights(self) -> None:
        return

    @property
    def schedule(self) -> Point:
        return INIT

    @property
    def length(self) -> tuple[int, float]:
        return self.epochs, self.lr


def rewind_of(rule: "Rewind | str | int") -> Rewind:
    """Converts an argument to a rewinding rule.

    Args:
        rule: A rule; or the point that everything returns to, such as ``"500 steps"``, ``"2 epochs"``, ``"1%"``.

    Raises:
        ConfigurationError: The argument is neither.
    """
    rule = plain(rule)
    if isinstance(rule, (str, int)):
        point = Point.parse(rule)
        if point.amount == 0:
            return ToInit()
        if point.unit == "epochs":
            return ToEpoch(int(point.amount))
        # Runs of earlier versions, which must still match, describe 1% as 1.0%.
        return ToStep(f"{point.amount}%" if point.unit == "%" else str(point))
    if not isinstance(rule, Rewind):
        raise ConfigurationError(
            f"rewind={rule!r} is not a rewinding rule. Write for example rewind=ToStep(500), or a point: {_FORMS}."
        )
    return rule


def _check_late(rule: Rewind, argument: str, value: object, point: Point) -> None:
    if isinstance(rule, ToEpoch) != (point.unit == "epochs"):
        raise ConfigurationError(
            f"{type(rule).__name__}({argument}={value!r}) is a point in {point.unit}. Use ToStep for steps and "
            "percentages, and ToEpoch for epochs."
        )
    if point.amount == 0:
        raise ConfigurationError(
            f"{type(rule).__name__}({argument}={value!r}) is initialisation. Write ToInit(), or a later point."
        )


def _check_optimizer(optimizer: object) -> None:
    if optimizer not in ("restore", "fresh"):
        raise ConfigurationError(
            f"optimizer={optimizer!r} is neither 'restore' nor 'fresh'. 'restore' uses the optimizer state at the "
            "point, 'fresh' starts without state."
        )
