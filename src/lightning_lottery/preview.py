"""What a run would prune, before any training."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from lightning_lottery.prunable import Selection, layers_of, refuse_lazy, refuse_pruned, select
from lightning_lottery.pruning import Pruner
from lightning_lottery.report import aligned
from lightning_lottery.settings import Settings


@dataclass(frozen=True)
class Preview:
    """What a run would prune; printing it shows a table.

    Attributes:
        layers: Name and shape of each prunable parameter, in order.
        kept: What each round keeps, by the names that compete: one entry for all layers, or one a layer, as the
            scope says. Numbers are of weights, or of the units of the pattern.
        left_out: The parameters that are never pruned, by name, each with the reason.
        selection: The same with the number of weights of every parameter.
    """

    layers: dict[str, tuple[int, ...]]
    kept: dict[tuple[str, ...], tuple[int, ...]]
    left_out: dict[str, str]
    selection: Selection

    @classmethod
    def of(cls, module: nn.Module, settings: Settings) -> "Preview":
        """Finds out what a run with these arguments would prune.

        Raises:
            ConfigurationError: The network does not go with the arguments.
        """
        refuse_lazy(module)
        refuse_pruned(module)
        selection = select(module, settings.include, settings.exclude)
        layers = layers_of(module, selection.parameters)
        pruner = settings.method.plan(layers, settings.sizes)
        return cls({layer.name: layer.shape for layer in layers}, _kept(pruner), selection.left_out, selection)

    def __str__(self) -> str:
        """The table: layer, shape, weights; what each round keeps; what is left out."""
        parts = [aligned(self._rows(), left={0, 1}), aligned(self._rounds())]
        if self.left_out:
            parts.append(aligned(self._others(), left={0, 2}))
        return "\n\n".join([*parts, self.selection.line()])

    def _rows(self) -> list[list[str]]:
        sizes = self.selection.sizes
        rows = [[name, " x ".join(map(str, shape)), f"{sizes[name]:,}"] for name, shape in self.layers.items()]
        return [["pruned", "shape", "weights"], *rows]

    def _rounds(self) -> list[list[str]]:
        """What each round keeps: a row a round, or a row a pool where there are several."""
        rounds = range(len(next(iter(self.kept.values()))))
        total = [sum(keep[number] for keep in self.kept.values()) for number in rounds]
        if len(self.kept) == 1:
            rows = [[str(number), f"{total[number]:,}", f"{total[number] / total[0]:.4f}"] for number in rounds]
            return [["round", "kept of all", "density"], *rows]
        rows = [[_pool(names), *(f"{count:,}" for count in keep)] for names, keep in self.kept.items()]
        return [["kept in round", *map(str, rounds)], *rows, ["together", *(f"{count:,}" for count in total)]]

    def _others(self) -> list[list[str]]:
        reasons, sizes = self.selection.by_reason(), self.selection.sizes
        rows = [
            [reason, f"{sum(sizes[name] for name in names):,}", ", ".join(names[:3]) + (", …" * (len(names) > 3))]
            for reason, names in reasons.items()
        ]
        return [["left out", "weights", "parameters"], *rows]


def _kept(pruner: Pruner) -> dict[tuple[str, ...], tuple[int, ...]]:
    pools: dict[tuple[str, ...], tuple[int, ...]] = {pool.names: pool.keep for pool in pruner.pools}
    pooled = {name for names in pools for name in names}
    rounds = len(next(iter(pools.values())))
    whole: dict[tuple[str, ...], tuple[int, ...]] = {
        (name,): (layer.units,) * rounds for name, layer in pruner.layers.items() if name not in pooled
    }
    return {**pools, **whole}


def _pool(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
