"""The sizes of the rounds: how many weights each one keeps."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from lightning_lottery.errors import ConfigurationError
from lightning_lottery.plain import check_integer, check_list, check_number, make_plain


@dataclass(frozen=True)
class Sizes:
    """The sizes of all rounds, determined by exactly one of three arguments.

    Attributes:
        rounds: Number of prunings, at least 1. With ``densities`` it is optional and must equal their number.
        amount: Fraction of the survivors that each pruning removes, in (0, 1).
        target_density: Density of the last round, in (0, 1); the densities in between fall geometrically.
        densities: The density of rounds 1, 2, …, each in (0, 1), falling or equal. A round of the same density as
            the round before removes nothing.

    Raises:
        ConfigurationError: None or several of the three are given, or one is out of range.
    """

    rounds: int | None = None
    amount: float | None = None
    target_density: float | None = None
    densities: Sequence[float] | None = None

    def __post_init__(self) -> None:
        make_plain(self)
        options = {"amount": self.amount, "target_density": self.target_density, "densities": self.densities}
        given = [f"{name}={value!r}" for name, value in options.items() if value is not None]
        if len(given) != 1:
            raise ConfigurationError(
                f"Pass exactly one of amount, target_density and densities; you passed "
                f"{' and '.join(given) or 'none of them'}. "
                "Write for example LotteryTicketCallback(rounds=10, amount=0.2)."
            )
        if self.densities is not None:
            self._check_densities(self.densities)
        elif self.rounds is None:
            raise ConfigurationError("rounds, the number of prunings, is missing. Write for example rounds=10.")
        else:
            check_integer("rounds", self.rounds, 1, "rounds=10")
        if self.amount is not None:
            example = "amount=0.2, which removes 20 % of the surviving weights in each round"
            check_number("amount", self.amount, "between 0 and 1, both excluded", example)
        if self.target_density is not None:
            example = "target_density=0.1, which keeps 10 % of the weights at the end"
            check_number("target_density", self.target_density, "between 0 and 1, both excluded", example)

    def _check_densities(self, densities: Sequence[float]) -> None:
        check_list("densities", densities, "densities=[0.5, 0.2]")
        for index, density in enumerate(densities):
            example = "densities=[0.5, 0.2, 0.1], without the dense round 0"
            check_number(f"densities[{index}]", density, "between 0 and 1, both excluded", example)
        if not densities or any(later > earlier for earlier, later in itertools.pairwise(densities)):
            raise ConfigurationError(
                f"densities={list(densities)!r} must be falling or equal numbers, one per round. Write for "
                "example densities=[0.5, 0.2, 0.1]."
            )
        if self.rounds is not None and self.rounds != len(densities):
            raise ConfigurationError(
                f"rounds={self.rounds} does not fit {len(densities)} densities. Leave out rounds: there is "
                "one round per density."
            )

    @property
    def last_round(self) -> int:
        """The number of the last round, equal to the number of prunings."""
        return len(self.densities) if self.densities is not None else int(self.rounds or 0)

    def repeats(self, number: int) -> bool:
        """Whether a round is to have the density of the round before.

        Args:
            number: The round, from 1.
        """
        return (
            self.densities is not None and number > 1 and self.densities[number - 1] == self.densities[number - 2]
        )

    def allows(self, number: int, before: int, after: int, is_sparse: bool) -> bool:
        """Whether the size of a round is possible after that of the round before.

        Args:
            number: The round, from 1.
            before: The number of units in the round before.
            after: The number of units in the round.
            is_sparse: Whether round 0 is sparse, because the search starts from a ticket. The first density may
                then be that of the ticket.
        """
        may_stay = self.repeats(number) or (self.densities is not None and number == 1 and is_sparse)
        return after < before or (after == before and may_stay)

    def counts(self, prunable: int, is_layer: bool = False, alive: int | None = None) -> list[int]:
        """The number of weights, or of other units, that each round keeps.

        Args:
            prunable: Number of prunable weights or units.
            is_layer: Whether this is one of several layers, of which a round may remove nothing or everything.
            alive: Number of those that survive in round 0; by default all. ``amount`` counts from them, densities
                from all prunable weights.

        Returns:
            ``last_round + 1`` numbers, starting with ``alive``. They fall, except in rounds of equal density.

        Raises:
            ConfigurationError: A round would remove nothing although its density is lower, or everything.
        """
        counts = [prunable if alive is None else alive]
        density = counts[0] / prunable
        for number in range(1, self.last_round + 1):
            if self.amount is not None:
                counts.append(counts[-1] - round(self.amount * counts[-1]))
            elif self.densities is not None:
                counts.append(round(self.densities[number - 1] * prunable))
            else:
                assert self.target_density is not None
                part = number / self.last_round
                counts.append(round(self.target_density**part * prunable * density ** (1 - part)))
            if is_layer:
                counts[-1] = min(counts[-1], counts[-2])
            elif counts[-1] < 1 or not self.allows(number, counts[-2], counts[-1], counts[0] < prunable):
                raise ConfigurationError(
                    f"Round {number} would keep {counts[-1]} of {prunable} prunable weights, after "
                    f"{counts[-2]} in the round before. Each round must remove at least one weight (unless "
                    "densities repeats the density before) and keep at least one. Use fewer rounds or other sizes."
                )
        return counts
