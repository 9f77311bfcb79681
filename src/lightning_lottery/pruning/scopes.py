"""Scopes: where scores compete, which decides how many weights each layer keeps."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import accumulate
from math import ceil, prod

from lightning_lottery.errors import ConfigurationError
from lightning_lottery.plain import check_number, make_plain
from lightning_lottery.pruning.layers import Layer
from lightning_lottery.pruning.sizes import Sizes


@dataclass(frozen=True)
class Pool:
    """Layers whose units compete with each other.

    Attributes:
        names: Names of the layers.
        keep: Number of units that they keep together in round 0, 1, …
    """

    names: tuple[str, ...]
    keep: tuple[int, ...]

    @classmethod
    def of(cls, layers: Sequence[Layer], sizes: Sizes) -> "Pool":
        """A pool of layers that keeps what the sizes say, also if the search starts from a ticket.

        Raises:
            ConfigurationError: A round would remove nothing, or everything.
        """
        units, alive = sum(layer.units for layer in layers), sum(layer.alive for layer in layers)
        return cls(tuple(layer.name for layer in layers), tuple(sizes.counts(units, alive=alive)))


@dataclass(frozen=True, kw_only=True)
class Scope(ABC):
    """Base class of scopes: which layers compete for how many units. Write your own as a frozen dataclass.

    Layers are named by patterns (``*``, ``?``, ``[…]``) of parameter names, or by ``"first"`` and ``"last"`` among
    the prunable layers in the order of definition. The first matching pattern counts.

    Attributes:
        min_density: Smallest fraction of its units that a layer keeps, in [0, 1]: one number for all layers, or by
            name, as in ``{"first": 1.0, "*.attention.*": 0.2}``.
        keep_alive: Whether every layer keeps at least one unit. Layers that would have become empty are reported.
            Few units per layer may still form no path from input to output; ``min_density`` is safer.
    """

    min_density: float | Mapping[str, float] = 0.0
    keep_alive: bool = True

    def __post_init__(self) -> None:
        make_plain(self)
        if not isinstance(self.keep_alive, bool):
            raise ConfigurationError(f"keep_alive={self.keep_alive!r} must be True or False.")
        by_name = self.min_density if isinstance(self.min_density, Mapping) else {"*": self.min_density}
        for name, value in by_name.items():
            entry = f"[{name!r}]" if isinstance(self.min_density, Mapping) else ""
            check_number(f"min_density{entry}", value, "between 0 and 1", "0.1")

    @abstractmethod
    def pools(self, layers: Sequence[Layer], sizes: Sizes) -> list[Pool]:
        """Distributes the sizes of all rounds over pools of layers.

        Args:
            layers: The prunable layers in order, with the number of their ``units``, of those that are ``alive``
                in round 0, and the ``least`` number that must stay.
            sizes: The requested sizes; ``Pool.of(layers, sizes)`` applies them to layers that compete.

        Returns:
            Pools, with every layer in at most one of them. A layer without a pool is never pruned.
        """

    def with_least(self, layers: Sequence[Layer]) -> list[Layer]:
        """Sets ``floor`` and ``least`` of the layers from ``min_density`` and ``keep_alive``.

        Raises:
            ConfigurationError: A name matches no layer.
        """
        density = (
            by_layer(layers, self.min_density, "min_density")
            if isinstance(self.min_density, Mapping)
            else {layer.name: self.min_density for layer in layers}
        )
        # Slightly less, since 0.07 of 100 would otherwise be rounded up to 8.
        places = [ceil(density.get(layer.name, 0.0) * layer.units - 1e-9) for layer in layers]
        floors = [
            min(max(count, int(self.keep_alive)), layer.alive) for count, layer in zip(places, layers, strict=True)
        ]
        return [
            replace(layer, floor=floor, least=max(layer.least, floor))
            for layer, floor in zip(layers, floors, strict=True)
        ]


@dataclass(frozen=True, kw_only=True)
class Global(Scope):
    """All units of the network compete (Frankle & Carbin 2018, arXiv:1803.03635, for deeper networks)."""

    def pools(self, layers: Sequence[Layer], sizes: Sizes) -> list[Pool]:
        return [Pool.of(layers, sizes)]


@dataclass(frozen=True, kw_only=True)
class Layerwise(Scope):
    """Units compete only within their layer (Frankle & Carbin 2018, arXiv:1803.03635, for LeNet-300-100).

    Every layer rounds its own counts, and what ``min_density`` keeps in one layer is not removed from others. The
    total density is therefore close to the requested sizes, but not equal.

    Attributes:
        layer_amounts: By name, the fraction of its surviving units that a pruning removes from a layer, in [0, 1).
            Other layers follow the common sizes. In the paper's LeNet the last layer loses 10 % per round and the
            others 20 %: ``amount=0.2, scope=Layerwise(layer_amounts={"last": 0.1})``.
    """

    layer_amounts: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.layer_amounts, Mapping):
            raise ConfigurationError(
                f"layer_amounts={self.layer_amounts!r} must be a dictionary of amounts by name, such as "
                f"{{'last': 0.1}}."
            )
        for name, value in self.layer_amounts.items():
            if not isinstance(name, str):
                raise ConfigurationError(
                    f"layer_amounts contains {name!r}, which is not a name. Write for example "
                    "layer_amounts={'last': 0.1}."
                )
            check_number(f"layer_amounts[{name!r}]", value, "from 0 to below 1", "0.1")

    def pools(self, layers: Sequence[Layer], sizes: Sizes) -> list[Pool]:
        amounts = by_layer(layers, self.layer_amounts, "layer_amounts")
        pools = []
        for layer in layers:
            amount = amounts.get(layer.name)
            if amount == 0 or layer.least == layer.alive:
                continue
            own = sizes if amount is None else Sizes(sizes.last_round, amount)
            counts = own.counts(layer.units, is_layer=True, alive=layer.alive)
            if amount is not None:
                prunes = (not sizes.repeats(number) for number in range(1, sizes.last_round + 1))
                counts = [counts[prunings] for prunings in accumulate(prunes, initial=0)]
            pools.append(Pool((layer.name,), tuple(max(count, layer.floor) for count in counts)))
        return pools


@dataclass(frozen=True, kw_only=True)
class ERK(Scope):
    """Densities by the Erdős-Rényi kernel rule (Evci et al. 2020, arXiv:1911.11134).

    The density of a layer is proportional to the sum of its dimensions divided by their product, and at most 1.
    Units compete within their layer. The total density is exact.
    """

    def pools(self, layers: Sequence[Layer], sizes: Sizes) -> list[Pool]:
        weights = [layer.units * max(1, sum(layer.shape)) / prod(layer.shape) for layer in layers]
        before = [layer.alive for layer in layers]
        rounds = [before]
        for count in sizes.counts(sum(layer.units for layer in layers), alive=sum(before))[1:]:
            before = deal_out(count, weights, [layer.least for layer in layers], before)
            rounds.append(before)
        return [Pool((layer.name,), tuple(kept[index] for kept in rounds)) for index, layer in enumerate(layers)]


def by_layer(layers: Sequence[Layer], values: Mapping[str, float], argument: str) -> dict[str, float]:
    """Resolves values given by patterns of names to values by layer.

    Args:
        layers: The layers in order.
        values: By pattern of a name, ``"first"`` or ``"last"``. The first match counts.
        argument: The name of the argument, for error messages.

    Raises:
        ConfigurationError: A pattern matches no layer.
    """
    ends = {"first": layers[0].name, "last": layers[-1].name}
    found: dict[str, float] = {}
    for pattern, value in values.items():
        wanted = ends.get(pattern, pattern)
        fitting = [layer.name for layer in layers if any(fnmatchcase(n, wanted) for n in layer.names)]
        if not fitting:
            raise ConfigurationError(
                f"{argument} contains {pattern!r}, which matches no prunable layer. The prunable layers are: "
                f"{', '.join(layer.name for layer in layers)}."
            )
        found = {**dict.fromkeys(fitting, value), **found}
    return found


def deal_out(total: int, weights: Sequence[float], least: Sequence[int], most: Sequence[int]) -> list[int]:
    """Distributes a total over integers in proportion to weights, within bounds.

    Args:
        total: Their sum.
        weights: Positive numbers, one for each integer.
        least: The smallest allowed integers.
        most: The largest ones.

    Raises:
        ConfigurationError: The bounds do not allow the total.
    """
    if not sum(least) <= total <= sum(most):
        raise ConfigurationError(
            f"{total} units cannot be distributed over layers that must keep {sum(least)} and have {sum(most)}. "
            "Use larger sizes, a smaller min_density, or keep_alive=False."
        )

    def shares(factor: float) -> list[float]:
        return [min(max(factor * w, low), high) for w, low, high in zip(weights, least, most, strict=True)]

    low, high = 0.0, max(high / weight for weight, high in zip(weights, most, strict=True))
    for _ in range(200):  # the sum of the shares rises with the factor
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


def scope_of(argument: "Scope | None") -> Scope:
    """Converts an argument to a scope; ``None`` means :class:`Global`.

    Raises:
        ConfigurationError: The argument is not a scope.
    """
    if argument is not None and not isinstance(argument, Scope):
        raise ConfigurationError(
            f"scope={argument!r} is not a scope. Write an instance such as scope=Layerwise()."
        )
    return argument or Global()
