"""The arguments of a run, checked."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lightning_lottery.errors import ConfigurationError
from lightning_lottery.plain import make_plain
from lightning_lottery.preflight.description import described
from lightning_lottery.pruning import Method, Sizes, Unstructured
from lightning_lottery.rules import Control, Point, Rewind, ShuffleMask, Stop, ToInit
from lightning_lottery.storage import TICKET_BRANCH, Records, RoundRecord

# Branches, groups of scalars and folders that are no control's.
_RESERVED = (TICKET_BRANCH, "tickets", "search", "layers", "dense", "lottery")


@dataclass(frozen=True)
class Settings:
    """The arguments of :class:`LotteryTicketCallback`, which describes them.

    Raises:
        ConfigurationError: One is out of its range: what came, what is allowed and what to write.
    """

    sizes: Sizes
    method: Method
    stop: Sequence[Stop]
    prune_at_init: bool
    rewind: Rewind
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
        make_plain(self)
        if self.monitor is not None and self.mode is None:
            raise ConfigurationError(
                f"monitor={self.monitor!r} came without mode. Write mode='max' if its large values are good, as "
                "of an accuracy, and mode='min' if small ones are, as of a loss."
            )
        if self.mode not in (None, "min", "max"):
            raise ConfigurationError(
                f"mode={self.mode!r} is neither 'min' nor 'max'. An accuracy wants mode='max', a loss mode='min'."
            )
        if self.monitor is None and self.mode is not None:
            raise ConfigurationError(
                f"mode={self.mode!r} came without monitor, the metric that it is for. Write also "
                "monitor='val_acc', or leave mode out."
            )
        if self.monitor is not None and not isinstance(self.monitor, str):
            raise ConfigurationError(f"monitor={self.monitor!r} is no name. Write for example monitor='val_acc'.")
        for argument in ("include", "exclude", "controls", "control_rounds", "stop"):
            value = getattr(self, argument)
            optional = value is None and argument == "control_rounds"
            if not optional and (not isinstance(value, Sequence) or isinstance(value, str)):
                raise ConfigurationError(f"{argument}={value!r} is no list. Write {argument}=[...].")
        for argument in ("include", "exclude"):
            if odd := [pattern for pattern in getattr(self, argument) if not isinstance(pattern, str)]:
                raise ConfigurationError(
                    f"{argument} holds {odd[0]!r}, which is not a string. Write patterns of parameter names, for "
                    f"example {argument}=['*.head.weight']."
                )
        self._check_controls()
        self._check_stop()
        for argument in ("prune_at_init", "same_data_order", "overwrite", "verbose"):
            if not isinstance(value := getattr(self, argument), bool):
                raise ConfigurationError(f"{argument}={value!r} must be True or False.")
        for moment in ("weights", "schedule"):
            point = getattr(self.rewind, moment)
            if not isinstance(point, Point) and (moment == "schedule" or point is not None):
                raise ConfigurationError(
                    f"{self.rewind!r} gives {moment}={point!r}, which is no Point. Write for example "
                    "Point(500, 'steps')."
                )
        if self.prune_at_init and self.method.criterion.needs_training:
            raise ConfigurationError(
                f"prune_at_init=True came with {self.method.criterion}, whose scores are all alike before any "
                "training. Leave it out, or take another criterion, such as SNIP()."
            )
        if self.prune_at_init and self.rewind != ToInit():
            raise ConfigurationError(
                f"prune_at_init=True came with rewind={self.rewind!r}, and round 0, which has that point, is not "
                "trained. Leave one of them out."
            )

    def _check_stop(self) -> None:
        for rule in self.stop:
            if not isinstance(rule, Stop):
                raise ConfigurationError(
                    f"stop holds {rule!r}, which is no stop rule. Write for example stop=[Tolerance(drop=0.01)]."
                )
            if rule.compares and (self.monitor is None or self.prune_at_init):
                raise ConfigurationError(
                    f"{rule} compares with the dense round by the monitored metric. Write also monitor='val_acc', "
                    "mode='max', without prune_at_init."
                )

    def _check_controls(self) -> None:
        for control in self.controls:
            if not isinstance(control, Control):
                raise ConfigurationError(
                    f"controls holds {control!r}, which is no control. Write instances, for example "
                    "controls=[Reinitialize(), ShuffleMask()]."
                )
        if type(self.method.pattern) is not Unstructured:
            for control in self.controls:
                if isinstance(control, ShuffleMask):
                    raise ConfigurationError(
                        f"ShuffleMask moves single weights, and would tear apart what {self.method.pattern} keeps "
                        "together, so that it would be no fair control. Write controls=[Reinitialize()]."
                    )
        branches = [control.branch for control in self.controls]
        for branch in branches:
            if branch in _RESERVED or not re.fullmatch(r"\w+", branch):
                raise ConfigurationError(
                    f"A control would go by the name {branch!r}, which "
                    + ("stands for something else" if branch in _RESERVED else "cannot be that of a file")
                    + " in records, files and loggers. Give its class another name, of letters and digits."
                )
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

    @property
    def plan(self) -> list[tuple[int, str]]:
        """Round and branch of everything to train, in this order: the tickets, then their controls."""
        first = 1 if self.prune_at_init else 0
        tickets = [(number, TICKET_BRANCH) for number in range(first, self.sizes.last_round + 1)]
        return [*tickets, *((number, control.branch) for number, control in self.controlled)]

    def plan_after(self, records: Records) -> list[tuple[int, str]]:
        """What of the plan is left when stop rules have looked at records; it begins alike."""
        tickets = list(records[TICKET_BRANCH].values())
        for end in range(1, len(tickets) + 1):
            if self._ending(tickets[:end]) is not None:
                return [entry for entry in self.plan if entry[0] <= tickets[end - 1].round]
        return self.plan

    def ending(self, records: Records) -> Stop | None:
        """The rule that ends the rounds after the last ticket of these records, if one does."""
        return self._ending(list(records[TICKET_BRANCH].values()))

    def _ending(self, tickets: Sequence[RoundRecord]) -> Stop | None:
        ending = (rule for rule in self.stop if rule.after_round(tickets, self.mode or "min"))
        return next(ending, None)

    def methods(self) -> dict[str, str]:
        """How tickets are found, in words."""
        return {
            "criterion": described(self.method.criterion),
            "scope": described(self.method.scope),
            "pattern": described(self.method.pattern),
            "rewind": described(self.rewind),
        }

    def described(self) -> dict[str, Any]:
        """The arguments that decide what is computed, as plain values."""
        return {
            **asdict(self.sizes),
            **self.methods(),
            "stop": [described(rule) for rule in self.stop],
            "prune_at_init": self.prune_at_init,
            "monitor": self.monitor,
            "mode": self.mode,
            "include": list(self.include),
            "exclude": list(self.exclude),
            "controls": [described(control) for control in self.controls],
            "control_rounds": sorted({number for number, _ in self.controlled}),
            "same_data_order": self.same_data_order,
        }
