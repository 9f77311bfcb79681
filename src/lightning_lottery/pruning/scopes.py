"""Scopes: where scores compete, and so how many weights every layer keeps."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from math import ceil, prod

from lightning_lottery.errors import ConfigurationError
from lightning_lottery.plain import make_plain
from lightning_lottery.pruning.layers import Layer
from lightning_lottery.pruning.sizes import Sizes


@dataclass(frozen=True)
class Pool:
    """Layers whose units compete with each other.

    Attributes:
        names: Names of the layers.
        keep: How many of their units are left in round 0, 1, …
    """

    names: tuple[str, ...]
    keep: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Scope(ABC):
    """Says which layers compete, and for how many places. A scope of your own is one frozen dataclass.

    Layers are named by patterns (``*``, ``?``, ``[…]``) of parameter names, or ``"first"`` and ``"last"`` of the
    prunable ones in the order of definition; the first pattern that fits counts.

    Attributes:
        min_density: Fraction of its units that a layer keeps at least, in [0, 1]: one for all, or by name, as in
            ``{"first": 1.0, "*.attention.*": 0.2}``.
        keep_alive: Whether a layer keeps at least one unit. What would have died is reported.
    """

    min_density: float | Mapping[str, float] = 0.0
    keep_alive: bool = True

    def __post_init__(self) -> None:
        make_plain(self)
        if not isinstance(self.keep_alive, bool):
            raise ConfigurationError(f"keep_alive={self.keep_alive!r} must be True or False.")
        by_name = self.min_density if isinstance(self.min_density, Mapping) else {"*": self.min_density}
        for name, value in by_name.items():
            if not _is_number(value) or not 0 <= value <= 1:
                raise ConfigurationError(
                    f"min_density of {name!r} is {value!r}; it must be a number from 0 to 1, for example 0.1."
                )

    @abstractmethod
    def pools(self, layers: Sequence[Layer], sizes: Sizes) -> list[Pool]:
        """Deals out the sizes of all rounds.

        Args:
            layers: The prunable layers in their order, with the number of their ``units`` and the ``least`` that
                must stay.
            sizes: The sizes that the user asked for; ``sizes.counts(n)`` makes counts of n units.

        Returns:
            Pools with a layer in at most one of them. A layer in none is never pruned.
        """

    def with_least(self, layers: Sequence[Layer]) -> list[Layer]:
        """The layers with the number of units that ``min_density`` and ``keep_alive`` want to stay.

        Raises:
            ConfigurationError: A name fits no layer.
        """
        density = (
            by_layer(layers, self.min_density, "min_density")
            if isinstance(self.min_density, Mapping)
            else {layer.name: self.min_density for layer in layers}
        )
        # A little less, or 0.07 of 100 would be 8.
        places = [ceil(density.get(layer.name, 0.0) * layer.units - 1e-9) for layer in layers]
        floors = [max(count, int(self.keep_alive)) for count in places]
        return [
            replace(layer, floor=floor, least=max(layer.least, floor))
            for layer, floor in zip(layers, floors, strict=True)
        ]


@dataclass(frozen=True, kw_only=True)
class Global(Scope):
    """All units of the network compete (Frankle & Carbin 2018, arXiv:1803.03635, for deeper networks)."""

    def pools(self, layers: Sequence[Layer], sizes: Sizes) -> list[Pool]:
        """See :meth:`Scope.pools`."""
        total = sum(layer.units for layer in layers)
        return [Pool(tuple(layer.name for layer in layers), tuple(sizes.counts(total)))]


@dataclass(frozen=True, kw_only=True)
class Layerwise(Scope):
    """Units compete within their layer only (Frankle & Carbin 2018, arXiv:1803.03635, for LeNet-300-100).

    Every layer rounds its own counts, and what ``min_density`` holds back in one is not taken from others; so the
    density of the whole is near the sizes that were asked for, not equal.

    Attributes:
        layer_amounts: Fraction of its surviving units that a pruning removes from a layer, in [0, 1), by name;
            other layers take the sizes of all. The paper's LeNet, whose last layer loses 10 % where others lose
            20 %, is ``amount=0.2, scope=Layerwise(layer_amounts={"last": 0.1})``.
    """

    layer_amounts: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.layer_amounts, Mapping):
            raise ConfigurationError(
                f"layer_amounts={self.layer_amounts!r} must give amounts by name, as in {{'last': 0.1}}."
            )
        for name, value in self.layer_amounts.items():
            if not isinstance(name, str) or not _is_number(value) or not 0 <= value < 1:
                raise ConfigurationError(
                    f"layer_amounts of {name!r} is {value!r}; it must be a number from 0 up to 1, for example 0.1."
                )

    def pools(self, layers: Sequence[Layer], sizes: Sizes) -> list[Pool]:
        """See :meth:`Scope.pools`."""
        amounts = by_layer(layers, self.layer_amounts, "layer_amounts")
        pools = []
        for layer in layers:
            amount = amounts.get(layer.name)
            if amount == 0 or layer.least == layer.units:
                continue
            own = sizes if amount is None else Sizes(sizes.last_round, amount)
            counts = own.counts(layer.units, may_stay=True)
            pools.append(Pool((layer.name,), tuple(max(count, layer.floor) for count in counts)))
        return pools


@dataclass(frozen=True, kw_only=True)
class ERK(Scope):
    """Densities by the Erdős-Rényi kernel rule (Evci et al. 2020, arXiv:1911.11134).

    The density of a layer is proportional to the sum of its dimensions over their product, and at most 1; units
    compete within their layer. The total is met exactly.
    """

    def pools(self, layers: Sequence[Layer], sizes: Sizes) -> list[Pool]:
        """See :meth:`Scope.pools`."""
        weights = [layer.units * max(1, sum(layer.shape)) / prod(layer.shape) for layer in layers]
        before = [layer.units for layer in layers]
        rounds = [before]
        for count in sizes.counts(sum(before))[1:]:
            before = _deal_out(count, weights, [layer.least for layer in layers], before)
            rounds.append(before)
        return [Pool((layer.name,), tuple(kept[index] for kept in rounds)) for index, layer in enumerate(layers)]


def by_layer(layers: Sequence[Layer], values: Mapping[str, float], argument: str) -> dict[str, float]:
    """What is given by patterns of names, by layer.

    Args:
        layers: The layers in their order.
        values: By pattern of a name, ``"first"`` or ``"last"``; the first that fits counts.
        argument: What to call it in an error.

    Raises:
        ConfigurationError: A pattern fits no layer.
    """
    ends = {"first": layers[0].name, "last": layers[-1].name}
    found: dict[str, float] = {}
    for pattern, value in values.items():
        fitting = [layer.name for layer in layers if fnmatchcase(layer.name, ends.get(pattern, pattern))]
        if not fitting:
            raise ConfigurationError(
                f"{argument} has {pattern!r}, which is the name of no prunable layer. They are: "
                f"{', '.join(layer.name for layer in layers)}."
            )
        found = {**dict.fromkeys(fitting, value), **found}
    return found


def _deal_out(total: int, weights: list[float], least: list[int], most: list[int]) -> list[int]:
    """Whole numbers in proportion to weights, within bounds, with a given sum.

    Raises:
        ConfigurationError: The sum is not within the sums of the bounds.
    """
    if not sum(least) <= total <= sum(most):
        raise ConfigurationError(
            f"{total} units cannot be dealt out where layers must keep {sum(least)} and have {sum(most)}. Ask for "
            "larger sizes, or a smaller min_density."
        )

    def shares(factor: float) -> list[float]:
        return [min(max(factor * w, low), high) for w, low, high in zip(weights, least, most, strict=True)]

    low, high = 0.0, max(high / weight for weight, high in zip(weights, most, strict=True))
    for _ in range(200):  # their sum rises with the factor
        middle = (low + high) / 2
        low, high = (middle, high) if sum(shares(middle)) <= total else (low, middle)
    exact = shares(low)
    dealt = [int(share + 1e-9) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda index: dealt[index] - exact[index])
    while sum(dealt) < total:
        for index in by_remainder:
            if sum(dealt) < total and dealt[index] < most[index]:
                dealt[index] += 1
    return dealt


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def scope_of(argument: "Scope | None") -> Scope:
    """The scope that an argument asks for; ``None`` is all of the network.

    Raises:
        ConfigurationError: It is none.
    """
    if argument is not None and not isinstance(argument, Scope):
        raise ConfigurationError(f"scope={argument!r} is no scope. Write an instance, such as scope=Layerwise().")
    return argument or Global()
