"""The arguments of a run, and their validation."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lightning_lottery.channels import Coupling
from lightning_lottery.errors import ConfigurationError
from lightning_lottery.plain import check_list, make_plain
from lightning_lottery.pruning import Layer, Method, Pruner, Sizes, Unstructured
from lightning_lottery.rules.control import Control, branches_of
from lightning_lottery.rules.controls import InitialTicket
from lightning_lottery.rules.description import described
from lightning_lottery.rules.rewind import Point, Rewind, ToInit
from lightning_lottery.rules.search import FullRounds, check_search, fully_trained
from lightning_lottery.rules.stopping import Stop
from lightning_lottery.tickets import SEARCH_BRANCH, TICKET_BRANCH, RoundId, Ticket

# Names with another meaning in records, files and loggers.
_RESERVED = (TICKET_BRANCH, "tickets", SEARCH_BRANCH, "layers", "dense", "lottery")


@dataclass(frozen=True)
class Settings:
    """The arguments of :class:`LotteryTicketCallback`; see there.

    Raises:
        ConfigurationError: An argument is invalid.
    """

    sizes: Sizes
    method: Method
    stop: Sequence[Stop]
    start: Ticket | None
    prune_at_init: bool
    rewind: Rewind
    monitor: str | None
    mode: str | None
    include: Sequence[str]
    exclude: Sequence[str]
    controls: Sequence[Control]
    control_rounds: Sequence[int] | None
    search: Point | None
    full_rounds: FullRounds
    same_data_order: bool
    dirpath: Path | None
    overwrite: bool
    verbose: bool

    def __post_init__(self) -> None:
        make_plain(self)
        self._check_monitor()
        for argument in ("include", "exclude", "controls", "control_rounds", "stop"):
            value = getattr(self, argument)
            if not (value is None and argument == "control_rounds"):
                check_list(argument, value, f"{argument}=[...]")
        for argument in ("include", "exclude"):
            if odd := [pattern for pattern in getattr(self, argument) if not isinstance(pattern, str)]:
                raise ConfigurationError(
                    f"{argument} contains {odd[0]!r}, which is not a string. Write patterns of parameter names, "
                    f"for example {argument}=['*.head.weight']."
                )
        self._check_search()
        self._check_controls()
        self._check_stop()
        for argument in ("prune_at_init", "same_data_order", "overwrite", "verbose"):
            if not isinstance(value := getattr(self, argument), bool):
                raise ConfigurationError(f"{argument}={value!r} must be True or False.")
        for moment in ("weights", "schedule"):
            point = getattr(self.rewind, moment)
            if not isinstance(point, Point) and (moment == "schedule" or point is not None):
                raise ConfigurationError(
                    f"{self.rewind!r} returns {moment}={point!r}, which is not a Point. Return for example "
                    "Point(500, 'steps')."
                )
        if self.prune_at_init and self.method.criterion.needs_training:
            raise ConfigurationError(
                f"prune_at_init=True cannot be combined with {self.method.criterion}, whose scores are all equal "
                "before training. Leave out prune_at_init, or use another criterion, such as SNIP()."
            )
        if self.prune_at_init and self.rewind != ToInit():
            raise ConfigurationError(
                f"prune_at_init=True cannot be combined with rewind={self.rewind!r}, because it does not train "
                "round 0, which contains the rewind point. Leave out one of them."
            )

    def _check_search(self) -> None:
        check_search(self.search, self.full_rounds, self.sizes.last_round, self.prune_at_init)
        if self.search is not None and self.rewind.length is not None:
            raise ConfigurationError(
                f"search='{self.search}' cannot be combined with rewind={self.rewind!r}, which sets the length of "
                "all later rounds. Leave out one of them."
            )

    def _check_monitor(self) -> None:
        if self.monitor is not None and self.mode is None:
            raise ConfigurationError(
                f"monitor={self.monitor!r} also needs mode. Write mode='max' if large values are good, as for an "
                "accuracy, or mode='min' if small values are good, as for a loss."
            )
        if self.mode not in (None, "min", "max"):
            raise ConfigurationError(
                f"mode={self.mode!r} is neither 'min' nor 'max'. Write mode='max' for an accuracy, mode='min' for "
                "a loss."
            )
        if self.monitor is None and self.mode is not None:
            raise ConfigurationError(
                f"mode={self.mode!r} also needs monitor, the metric that it refers to. Add for example "
                "monitor='val_acc', or leave out mode."
            )
        if self.monitor is not None and not isinstance(self.monitor, str):
            raise ConfigurationError(
                f"monitor={self.monitor!r} is not a name. Write for example monitor='val_acc'."
            )

    def _check_stop(self) -> None:
        for rule in self.stop:
            if not isinstance(rule, Stop):
                raise ConfigurationError(
                    f"stop contains {rule!r}, which is not a stop rule. Write for example "
                    "stop=[Tolerance(drop=0.01)]."
                )
            if rule.compares and (self.monitor is None or self.prune_at_init):
                raise ConfigurationError(
                    f"{rule} compares the monitored metric with the dense round. Add for example "
                    "monitor='val_acc' and mode='max', and leave out prune_at_init."
                )

    def _check_controls(self) -> None:
        for control in self.controls:
            if not isinstance(control, Control):
                raise ConfigurationError(
                    f"controls contains {control!r}, which is not a control. Write instances, for example "
                    "controls=[Reinitialize(), ShuffleMask()]."
                )
        if type(self.method.pattern) is not Unstructured:
            for control in self.controls:
                if control.moves_mask:
                    raise ConfigurationError(
                        f"{type(control).__name__} moves single weights and would break up the units of "
                        f"{self.method.pattern}, so it is not a fair control. Write controls=[Reinitialize()]."
                    )
        for branch in self.branches:
            if branch in _RESERVED or not isinstance(branch, str) or not re.fullmatch(r"\w{1,50}", branch):
                raise ConfigurationError(
                    f"The name of a control is {branch!r}, which "
                    + ("has another meaning" if branch in _RESERVED else "is not a valid name")
                    + " in records, files and loggers. Use up to 50 letters, digits, underscores: name='other'."
                )
        self._check_control_rounds()
        self._check_trainings_of_controls()

    def _check_trainings_of_controls(self) -> None:
        """Checks that the rounds of controls exist, and that none only repeats the training of its ticket."""
        for control in self.controls:
            name = type(control).__name__
            rounds = list(control.rounds(self.controlled_rounds))
            possible = [0, *self.ticket_rounds]
            if odd := [n for n in rounds if type(n) is not int or n not in possible]:
                raise ConfigurationError(
                    f"{name}.rounds returns {rounds}, but {odd[0]!r} is not a round that trains fully. These are "
                    f"{possible}."
                )
            if self.prune_at_init and 0 in rounds:
                raise ConfigurationError(
                    f"{name} repeats the dense round, but prune_at_init=True trains none. Leave out one of them."
                )
            if isinstance(control, InitialTicket) and self.rewind.weights == self.rewind.schedule == Point():
                raise ConfigurationError(
                    f"{name} would only repeat the training of the ticket, since rewind={self.rewind!r} returns "
                    f"to initialisation anyway. Leave out {name}, or choose a later point, such as rewind='1%'."
                )

    def _check_control_rounds(self) -> None:
        """Checks the argument ``control_rounds``."""
        rounds, possible = self.control_rounds, self.ticket_rounds
        if rounds is None:
            return
        if not self.controls:
            raise ConfigurationError(
                f"control_rounds={list(rounds)!r} also needs controls. Add for example controls=[Reinitialize()]."
            )
        allowed = all(type(number) is int and number in possible for number in rounds)
        if not rounds or not allowed or len(set(rounds)) < len(rounds):
            last = possible[-1]
            which = f"from 1 to {last}" if self.search is None else f"that train fully: {possible}"
            raise ConfigurationError(
                f"control_rounds={list(rounds)!r} must contain different rounds {which}. Round 0 is "
                f"what tickets are compared with. Write for example control_rounds=[{last}]."
            )

    @property
    def first_round(self) -> int:
        """The number of the first round that is trained: 1 with ``prune_at_init``, otherwise 0."""
        return 1 if self.prune_at_init else 0

    @property
    def controlled_rounds(self) -> list[int]:
        """The rounds whose tickets the controls use; empty without controls."""
        if not self.controls:
            return []
        return self.ticket_rounds if self.control_rounds is None else sorted(self.control_rounds)

    @property
    def ticket_rounds(self) -> list[int]:
        """The rounds after round 0 whose tickets train fully: all of them without ``search``."""
        return fully_trained(self.search, self.full_rounds, self.sizes.last_round)

    @property
    def control_ids(self) -> list[RoundId]:
        """The trainings of all controls, in order."""
        rounds = {branch: control.rounds(self.controlled_rounds) for branch, control in self.branches.items()}
        numbers = sorted({number for chosen in rounds.values() for number in chosen})
        return [RoundId(number, branch) for number in numbers for branch in rounds if number in rounds[branch]]

    @property
    def branches(self) -> dict[str, Control]:
        """The controls by the name of their branch."""
        return branches_of(self.controls)

    def methods(self) -> dict[str, str]:
        """How tickets are found, as strings."""
        return {
            "criterion": described(self.method.criterion),
            "scope": described(self.method.scope),
            "pattern": described(self.method.pattern),
            "rewind": described(self.rewind),
            # Runs of earlier versions, which must still match, have no such entries.
            **({} if self.start is None else {"start": self.start.fingerprint}),
            **({} if self.search is None else {"search": str(self.search)}),
        }

    def plan(self, layers: Sequence[Layer], coupling: Coupling | None = None) -> Pruner:
        """Computes what every round keeps of some layers.

        Args:
            layers: The layers.
            coupling: The channels that depend on each other, if the pattern needs them.

        Raises:
            ConfigurationError: The pattern does not support a layer, or the sizes are impossible.
        """
        return self.method.plan(layers, self.sizes, None if self.start is None else self.start.masks, coupling)

    def described(self) -> dict[str, Any]:
        """The arguments that influence the result of a run, as plain values."""
        return {
            **asdict(self.sizes),
            **self.methods(),
            "stop": [described(rule) for rule in self.stop],
            "prune_at_init": self.prune_at_init,
            "monitor": self.monitor,
            "mode": self.mode,
            "include": list(self.include),
            "exclude": list(self.exclude),
            "controls": [described(c) + (f", name={c.name!r}" if c.name else "") for c in self.controls],
            "control_rounds": self.controlled_rounds,
            **({} if self.search is None else {"full_rounds": self.ticket_rounds}),
            "same_data_order": self.same_data_order,
        }
