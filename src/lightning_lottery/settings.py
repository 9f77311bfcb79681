"""The arguments of a run, checked."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lightning_lottery.controls import Control
from lightning_lottery.errors import ConfigurationError
from lightning_lottery.sizes import Sizes


@dataclass(frozen=True)
class Settings:
    """The arguments of :class:`LotteryTicketCallback`, which describes them.

    Raises:
        ConfigurationError: One is out of its range: what came, what is allowed and what to write.
    """

    sizes: Sizes
    monitor: str | None
    mode: str | None
    include: Sequence[str]
    exclude: Sequence[str]
    controls: Sequence[Control]
    control_rounds: Sequence[int] | None
    same_data_order: bool
    dirpath: Path | None
    overwrite: bool
    verbose: bool

    def __post_init__(self) -> None:
        if self.monitor is not None and self.mode is None:
            raise ConfigurationError(
                f"monitor={self.monitor!r} came without mode. Write mode='max' if its large values are good, as "
                "of an accuracy, and mode='min' if small ones are, as of a loss."
            )
        if self.mode not in (None, "min", "max"):
            raise ConfigurationError(
                f"mode={self.mode!r} is neither 'min' nor 'max'. An accuracy wants mode='max', a loss mode='min'."
            )
        if self.monitor is not None and not isinstance(self.monitor, str):
            raise ConfigurationError(f"monitor={self.monitor!r} is no name. Write for example monitor='val_acc'.")
        for argument in ("include", "exclude", "controls", "control_rounds"):
            value = getattr(self, argument)
            optional = value is None and argument == "control_rounds"
            if not optional and (not isinstance(value, Sequence) or isinstance(value, str)):
                raise ConfigurationError(f"{argument}={value!r} is no list. Write {argument}=[...].")
        self._check_controls()

    def _check_controls(self) -> None:
        for control in self.controls:
            if not isinstance(control, Control):
                raise ConfigurationError(
                    f"controls holds {control!r}, which is no control. Write instances, for example "
                    "controls=[Reinitialize(), ShuffleMask()]."
                )
        branches = [control.branch for control in self.controls]
        if len(set(branches)) < len(branches):
            raise ConfigurationError(f"The controls {branches} are not all different: keep one of each.")
        rounds, last = self.control_rounds, self.sizes.last_round
        if rounds is None:
            return
        if not self.controls:
            raise ConfigurationError(
                f"control_rounds={list(rounds)!r} came without controls. Write also controls=[Reinitialize()]."
            )
        allowed = all(isinstance(number, int) and 1 <= number <= last for number in rounds)
        if not rounds or not allowed or len(set(rounds)) < len(rounds):
            raise ConfigurationError(
                f"control_rounds={list(rounds)!r} must name different rounds from 1 to {last}. Round 0 is dense "
                f"and has no mask to control. Write for example control_rounds=[{last}]."
            )

    @property
    def controlled(self) -> list[tuple[int, Control]]:
        """The controls to train after the tickets: (round, control), in this order."""
        every = range(1, self.sizes.last_round + 1)
        rounds = every if self.control_rounds is None else sorted(self.control_rounds)
        return [(number, control) for number in rounds for control in self.controls]

    def described(self) -> dict[str, Any]:
        """The arguments that decide what is computed, as plain values."""
        return {
            **asdict(self.sizes),
            "monitor": self.monitor,
            "mode": self.mode,
            "include": list(self.include),
            "exclude": list(self.exclude),
            "controls": [repr(control) for control in self.controls],
            "control_rounds": sorted({number for number, _ in self.controlled}),
            "same_data_order": self.same_data_order,
        }
