"""The monitored metric of one round: when it was logged, and with which values."""

from lightning.pytorch import Trainer
from torch import Tensor

from lightning_lottery.storage import Curve


class MonitoredMetric:
    """Collects the curve of the monitored metric.

    It is observed at each validation and at the end of each epoch. The Trainer only knows the last value of a
    metric, and not when it was logged. A value is new if it is another tensor than before. But after a validation
    the Trainer computes equal tensors once more, until the next batch.

    Attributes:
        curve: The values so far.

    Args:
        monitor: The name of the metric; ``None`` if there is none.
        mode: ``"min"`` or ``"max"``.
        trainer: The Trainer, at the start of the round. With a later rewind point, the metric has a value from
            round 0 then, which is not part of the curve.
    """

    def __init__(self, monitor: str | None, mode: str | None, trainer: Trainer) -> None:
        self.curve = Curve(mode or "min")
        self._monitor = monitor
        self._seen = self._value(trainer)
        self._is_after_validation = False

    def _value(self, trainer: Trainer) -> Tensor | None:
        return None if self._monitor is None else trainer.callback_metrics.get(self._monitor)

    def observe(self, trainer: Trainer) -> None:
        """Adds the value to the curve if it was logged since the last call."""
        value = self._value(trainer)
        if value is not None and value is not self._seen:
            self._seen = value
            self.curve.observe(float(value), trainer.global_step)

    def end_validation(self, trainer: Trainer) -> None:
        """Observes the metric in ``on_validation_end``."""
        self.observe(trainer)
        self._is_after_validation = True

    def begin_batch(self, trainer: Trainer) -> None:
        """Call it before each training batch."""
        if self._is_after_validation:
            self._seen, self._is_after_validation = self._value(trainer), False
