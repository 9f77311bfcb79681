"""What a verdict is asked about."""

from dataclasses import dataclass
from typing import Literal

from lightning_lottery.errors import ConfigurationError
from lightning_lottery.plain import check_number, make_plain


@dataclass(frozen=True)
class Question:
    """What is compared between the trainings of a study, and how.

    Attributes:
        metric: The name of the metric.
        mode: ``"max"`` if larger values are better, ``"min"`` if smaller ones are.
        at: ``"best"`` for the best value of each training (on the test set: with the checkpoint of that moment),
            ``"end"`` for the value at its end.
        is_test: Whether the metric was measured on the test set, after the fit. Otherwise it was logged during the
            fit.
        is_validation: Whether the test set seems to be the validation set, since all its metrics are equal.
        is_monitored: Whether it is the metric that the callback monitors, so that selection may depend on it.
        tolerance: How much worse than dense still matches, in units of the metric, at least 0.
        reach: A value of the monitored metric, or ``"dense"`` for that of round 0 with the same seed. The steps at
            which it is first reached are compared, too.
        confidence: The confidence of the intervals, between 0 and 1.

    Raises:
        ConfigurationError: A value is invalid.
    """

    metric: str
    mode: Literal["min", "max"]
    at: Literal["best", "end"]
    is_test: bool = False
    is_validation: bool = False
    is_monitored: bool = True
    tolerance: float = 0.0
    reach: float | Literal["dense"] | None = None
    confidence: float = 0.95

    def __post_init__(self) -> None:
        make_plain(self)
        if self.mode not in ("min", "max"):
            raise ConfigurationError(
                f"mode={self.mode!r} is neither 'min' nor 'max'. Write mode='max' or mode='min'."
            )
        if self.at not in ("best", "end"):
            raise ConfigurationError(f"at={self.at!r} is neither 'best' nor 'end'. Write at='best' or at='end'.")
        check_number("tolerance", self.tolerance, "of at least 0", "tolerance=0.005")
        check_number("confidence", self.confidence, "between 0 and 1, both excluded", "confidence=0.95")
        if self.reach is not None and self.reach != "dense":
            check_number("reach", self.reach, "other than NaN or infinity", "reach=0.95 or reach='dense'")
