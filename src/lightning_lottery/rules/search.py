"""Short search rounds, which only look for the next mask, and the tickets that train fully after them."""

from collections.abc import Sequence
from typing import Any, Literal

from lightning_lottery.errors import ConfigurationError
from lightning_lottery.plain import plain
from lightning_lottery.rules.rewind import Point

FullRounds = Sequence[int] | Literal["all"] | None
_FORMS = "'1000 steps', '2 epochs' or '20%' (of the steps of one round)"


def length_of(search: str | int | None) -> Point | None:
    """Converts the argument ``search`` to the length of a search round.

    Args:
        search: A number of steps; a string such as ``"1000 steps"``, ``"2 epochs"``, ``"20%"``; or ``None``.

    Raises:
        ConfigurationError: It is not a length, it is zero, or it is 100 % or more.
    """
    if (search := plain(search)) is None:
        return None
    try:
        length = Point.parse("" if search == "init" else search)
    except ConfigurationError:
        raise ConfigurationError(
            f"search={search!r} is not the length of a search round, which must be shorter than a whole round. "
            f"Write for example {_FORMS}; to train all rounds fully, leave out search."
        ) from None
    if length.amount == 0:
        raise ConfigurationError(
            f"search={search!r} is below one step. Write for example {_FORMS}; to prune only once, leave out "
            "search and write for example densities=[0.1]."
        )
    return length


def check_search(length: Point | None, full_rounds: FullRounds, last_round: int, prune_at_init: bool) -> None:
    """Checks the arguments about search rounds.

    Args:
        length: The length of a search round; ``None`` if all rounds train fully.
        full_rounds: The rounds whose tickets train fully.
        last_round: The number of the last round.
        prune_at_init: Whether the search prunes before any training.

    Raises:
        ConfigurationError: The arguments do not fit each other, or a round does not exist.
    """
    if length is None:
        if full_rounds is not None:
            raise ConfigurationError(
                f"full_rounds={full_rounds!r} also needs search, since without it all rounds train fully. Add for "
                "example search='20%', or leave out full_rounds."
            )
        return
    if prune_at_init:
        raise ConfigurationError(
            f"search='{length}' cannot be combined with prune_at_init=True, which trains no round 0 to compare "
            "with. Leave out one of them."
        )
    if last_round == 1:
        raise ConfigurationError(
            f"search='{length}' would have no effect, since the only pruning follows round 0, which always trains "
            "fully. Leave out search, or use more rounds."
        )
    _check_full_rounds(full_rounds, last_round)


def _check_full_rounds(full_rounds: FullRounds, last_round: int) -> None:
    if full_rounds is None or full_rounds == "all":
        return
    if isinstance(full_rounds, str) or not isinstance(full_rounds, Sequence):
        raise ConfigurationError(
            f"full_rounds={full_rounds!r} is neither a list of rounds nor 'all'. Write for example "
            f"full_rounds=[{last_round}]."
        )
    numbers: list[Any] = list(full_rounds)
    exist = all(type(number) is int and 1 <= number <= last_round for number in numbers)
    if not numbers or not exist or len(set(numbers)) < len(numbers):
        raise ConfigurationError(
            f"full_rounds={numbers!r} must contain different rounds from 1 to {last_round}. Round 0 always trains "
            f"fully. Write for example full_rounds=[{last_round}], or full_rounds='all'."
        )
    if last_round not in numbers:
        raise ConfigurationError(
            f"full_rounds={numbers!r} does not contain the last round, {last_round}, so nothing would train the "
            f"tickets found after round {max(numbers)}. Write full_rounds={[*sorted(numbers), last_round]}, or "
            "search only up to the last ticket that you need."
        )


def fully_trained(length: Point | None, full_rounds: FullRounds, last_round: int) -> list[int]:
    """The rounds after round 0 whose tickets train fully, in order."""
    if length is None or full_rounds == "all":
        return list(range(1, last_round + 1))
    return [last_round] if full_rounds is None else sorted(map(int, full_rounds))
