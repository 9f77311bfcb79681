"""Shows what a run would prune, without training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from lightning_lottery.channels import example_of, find_coupling
from lightning_lottery.errors import ConfigurationError
from lightning_lottery.preflight.checks import select_for
from lightning_lottery.pruning import Pruner, Selection, layers_of
from lightning_lottery.report import aligned
from lightning_lottery.rules import Settings


@dataclass(frozen=True)
class Preview:
    """What a run would prune. Printing it shows a table.

    Attributes:
        layers: Name and shape of each prunable parameter, in order.
        kept: The number of weights (or units of the pattern) that each round keeps, from round 0 on, by the names
            of the layers that compete: one entry for all layers or one per layer, depending on the scope.
        units: The number of prunable weights (or units of the pattern).
        selection: The parameters that are pruned and those that are not.
        first_round: The first round to be trained: 1 with ``prune_at_init``, otherwise 0.
        kept_whole: The prunable parameters of which the pattern can remove nothing, by the reason.
    """

    layers: dict[str, tuple[int, ...]]
    kept: dict[tuple[str, ...], tuple[int, ...]]
    units: int
    selection: Selection
    first_round: int
    kept_whole: Mapping[str, Sequence[str]]

    @property
    def left_out(self) -> dict[str, str]:
        """The parameters that are never pruned, by name, each with the reason."""
        return self.selection.left_out

    @classmethod
    def of(cls, module: nn.Module, settings: Settings, example: Any = None) -> "Preview":
        """Computes what a run with these arguments would prune.

        Args:
            module: The network.
            settings: The arguments.
            example: What the network is called with, if the pattern needs it; by default ``example_input_array``.

        Raises:
            ConfigurationError: The network does not work with the arguments.
        """
        if not isinstance(module, nn.Module):
            raise ConfigurationError(f"preview needs a network (a torch.nn.Module), but got {module!r:.200}.")
        selection = select_for(module, settings)
        layers = layers_of(module, selection.parameters)
        coupling = None
        if settings.method.pattern.needs_example:
            coupling = find_coupling(module, example_of(module) if example is None else example)
            coupling = coupling.without(dict.fromkeys(selection.excluded, "is excluded"))
        pruner = settings.plan(layers, coupling)
        shapes = {layer.name: layer.shape for layer in layers}
        units = sum(layer.units for layer in pruner.layers.values())
        return cls(shapes, _kept(pruner), units, selection, settings.first_round, pruner.units.kept_whole())

    def __str__(self) -> str:
        """The tables: prunable layers, what each round keeps, what is left out."""
        parts = [
            aligned(self._rows(), left={0, 1}),
            aligned(self._rounds(), left={0} if len(self.kept) > 1 else set()),
        ]
        if self.kept_whole:
            rows = [[reason, ", ".join(names)] for reason, names in self.kept_whole.items()]
            parts.append(aligned([["kept whole, since", "parameters"], *rows], left={0, 1}))
        if self.left_out:
            parts.append(aligned(self._others(), left={0, 2}))
        return "\n\n".join([*parts, self.selection.line()])

    def _rows(self) -> list[list[str]]:
        sizes = self.selection.sizes
        rows = [[name, " x ".join(map(str, shape)), f"{sizes[name]:,}"] for name, shape in self.layers.items()]
        return [["pruned", "shape", "weights"], *rows]

    def _rounds(self) -> list[list[str]]:
        """What each round keeps: one row per round, or with several pools one row per pool."""
        total = [sum(keep) for keep in zip(*self.kept.values(), strict=True)]
        rounds = range(self.first_round, len(total))
        if len(self.kept) == 1:
            rows = [[str(number), f"{total[number]:,}", f"{total[number] / self.units:.4f}"] for number in rounds]
            return [["round", "kept", "density"], *rows]
        named = [*((_pool(names), keep) for names, keep in self.kept.items()), ("total", tuple(total))]
        counts = [[name, *(f"{keep[number]:,}" for number in rounds)] for name, keep in named]
        return [["kept in round", *map(str, rounds)], *counts]

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
        (name,): (layer.alive,) * rounds for name, layer in pruner.layers.items() if name not in pooled
    }
    return {**pools, **whole}


def _pool(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
