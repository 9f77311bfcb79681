"""One pruning: combines scores, pools and units."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from lightning_lottery.channels import Coupling
from lightning_lottery.errors import ConfigurationError, TrainingError
from lightning_lottery.masks import Masks, nan_error, prune_smallest, sharding
from lightning_lottery.pruning.criteria import Context, Criterion, wide
from lightning_lottery.pruning.layers import Layer
from lightning_lottery.pruning.norms import largest
from lightning_lottery.pruning.patterns import Unstructured
from lightning_lottery.pruning.scopes import Pool, Scope, deal_out
from lightning_lottery.pruning.sizes import Sizes
from lightning_lottery.pruning.units import Pattern, Units


@dataclass(frozen=True)
class Method:
    """How weights are pruned.

    Attributes:
        criterion: How a weight is scored.
        scope: Where scores compete.
        pattern: What is removed at once.
    """

    criterion: Criterion
    scope: Scope
    pattern: Pattern

    def plan(
        self,
        layers: Sequence[Layer],
        sizes: Sizes,
        masks: Mapping[str, Tensor] | None = None,
        coupling: Coupling | None = None,
    ) -> "Pruner":
        """Computes what every round keeps.

        Args:
            layers: The prunable layers in order.
            sizes: The sizes of the rounds.
            masks: The masks of round 0 by name, not sharded; layers without one, by default all, are dense.
            coupling: The channels of the network that depend on each other, if the pattern needs them.

        Raises:
            ConfigurationError: The pattern does not support a layer, or the sizes are impossible.
        """
        units = self.pattern.group(layers, coupling)
        made = units.layers(masks or {})
        if all(layer.least == layer.alive for layer in made):
            raise ConfigurationError(
                f"{self.pattern} keeps every weight of {', '.join(layer.name for layer in made)}, so nothing can "
                "be pruned. Use another pattern, or include other layers."
            )
        empty_without_keep_alive = self._empty_without_keep_alive(made, sizes)
        made = self.scope.with_least(made)
        pools = list(self.scope.pools(made, sizes))
        _check(pools, made, sizes, self)
        return Pruner(self, units, {layer.name: layer for layer in made}, pools, empty_without_keep_alive)

    def one_pruning(self, layers: Sequence[Layer], masks: Mapping[str, Tensor], total: int) -> "Pruner":
        """Computes a single pruning to an exact number of units.

        Unlike in :meth:`plan`, counts that layers round by themselves are corrected, and what a norm keeps in one
        layer is removed from others.

        Args:
            layers: The prunable layers in order.
            masks: The masks of round 0 by name, not sharded.
            total: The number of units to keep.

        Raises:
            ConfigurationError: The layers cannot keep exactly that many.
        """
        units = self.pattern.group(layers)
        made = self.scope.with_least(units.layers(masks))
        by_name = {layer.name: layer for layer in made}
        pools = self.scope.pools(made, Sizes(densities=[total / sum(layer.units for layer in made)]))
        never = sum(layer.alive for layer in made) - sum(pool.keep[0] for pool in pools)
        least = [sum(by_name[name].least for name in pool.names) for pool in pools]
        # Layers without a share may have to keep a unit, too.
        shares = [max(pool.keep[1], 0.5) for pool in pools]
        dealt = deal_out(total - never, shares, least, [pool.keep[0] for pool in pools])
        pools = [replace(pool, keep=(pool.keep[0], kept)) for pool, kept in zip(pools, dealt, strict=True)]
        return Pruner(self, units, by_name, pools)

    def _empty_without_keep_alive(self, layers: Sequence[Layer], sizes: Sizes) -> dict[str, int]:
        """The layers that would become empty without ``keep_alive``, and the round in which they would."""
        bare = replace(self.scope, keep_alive=False)
        try:
            pools = bare.pools(bare.with_least(layers), sizes) if self.scope.keep_alive else []
        except ConfigurationError:  # the scope itself reports it
            return {}
        return {pool.names[0]: pool.keep.index(0) for pool in pools if len(pool.names) == 1 and 0 in pool.keep}


@dataclass(frozen=True)
class Pruner:
    """Makes the masks of every round.

    Attributes:
        method: How weights are pruned.
        units: What is removed at once.
        layers: The layers that compete, by name.
        pools: Which layers compete, and what every round keeps.
        empty_without_keep_alive: Layers that only ``keep_alive`` keeps from becoming empty, and the round in
            which they would.
    """

    method: Method
    units: Units
    layers: Mapping[str, Layer]
    pools: Sequence[Pool]
    empty_without_keep_alive: Mapping[str, int] = field(default_factory=dict)

    @property
    def counts(self) -> list[int]:
        """The number of units that each round keeps."""
        pooled = {name for pool in self.pools for name in pool.names}
        never = sum(layer.alive for name, layer in self.layers.items() if name not in pooled)
        return [never + sum(kept) for kept in zip(*(pool.keep for pool in self.pools), strict=True)]

    def removes(self, number: int) -> bool:
        """Whether a round, from 1, keeps fewer units than the round before."""
        return any(pool.keep[number] < pool.keep[number - 1] for pool in self.pools)

    def masks(self, number: int, masks: Masks, context: Callable[[Masks], Context]) -> tuple[Masks, list[str]]:
        """The masks of a round.

        Args:
            number: The round that the masks are for, from 1.
            masks: The masks of the round before.
            context: Makes the context of the criterion, given the masks so far.

        Returns:
            New masks, subsets of the old ones, and the names of layers that would have become empty.

        Raises:
            TrainingError: Scores are NaN, or do not have the shape of the weights.
        """
        if not self.removes(number):  # nothing to score
            return dict(masks), []
        iterations = self.method.criterion.iterations
        rescued = [name for name, first in self.empty_without_keep_alive.items() if first <= number]
        for iteration in range(1, iterations + 1):
            units, alive = self._unit_scores(context(masks)), self.units.alive(masks)
            for pool in self.pools:
                start, end = pool.keep[number - 1], pool.keep[number]
                part = iteration / iterations
                keep = end if part == 1 or start == 0 else round(start * (end / start) ** part)
                rescued += self._prune(pool, keep, units, alive)
            masks = self.units.masks(alive, masks)
        return masks, list(dict.fromkeys(rescued))

    @torch.no_grad()
    def random_masks(self, masks: Masks, number: int, seed: int) -> Masks:
        """Masks from random scores.

        Args:
            masks: The masks of round 0.
            number: The round whose size they get.
            seed: Seed of the scores.
        """
        generator = torch.Generator().manual_seed(seed)
        # In double precision, since equal scores would be removed by position.
        scores = {n: torch.rand(mask.shape, generator=generator, dtype=torch.float64) for n, mask in masks.items()}
        units = self.units.scores({name: score.to(masks[name].device) for name, score in scores.items()})
        alive = self.units.alive(masks)
        for pool in self.pools:
            self._prune(pool, pool.keep[number], units, alive)
        return self.units.masks(alive, masks)

    @torch.no_grad()
    def _unit_scores(self, context: Context) -> Mapping[str, Tensor]:
        """The scores of all units. Scores of single weights keep their signs."""
        criterion, pattern = self.method.criterion, self.method.pattern
        if criterion.scores_units:
            units = self.units.scores({n: torch.zeros_like(mask.float()) for n, mask in context.masks.items()})
            return criterion.score(replace(context, weights=units))
        scores = criterion.score(context)
        check_scores(criterion, scores, context.masks)
        scores = {name: score.detach() for name, score in scores.items()}
        if type(pattern) is Unstructured:
            return scores
        if criterion.absolute:  # norms and groups use magnitudes
            scores = {name: score.abs() for name, score in scores.items()}
        return self.units.scores(_scaled(scores))

    @property
    def _ranks_magnitudes(self) -> bool:
        return self.method.criterion.absolute and type(self.method.pattern) is Unstructured

    @torch.no_grad()
    def _prune(
        self, pool: Pool, keep: int, units: Mapping[str, Tensor], everywhere: dict[str, Tensor]
    ) -> list[str]:
        """Prunes the layers of a pool in place. Returns the names of layers that would have become empty."""
        names, absolute = pool.names, self._ranks_magnitudes
        alive = {name: everywhere[name] for name in names}
        removable = {name: self._removable(name, units[name], alive[name]) for name in names}
        for name in names:  # units that may not be removed are not checked later
            if removable[name] is not alive[name] and bool((units[name].isnan() & alive[name]).any()):
                raise nan_error(name)
        before = _counts(alive)
        excess = sum(before.values()) - keep
        competing, rescued = list(names), []
        while excess > 0:
            kept = prune_smallest(
                {name: units[name] for name in competing},
                {name: removable[name] for name in competing},
                excess,
                absolute,
            )
            left = {name: _without(alive[name], removable[name], kept[name]) for name in competing}
            counts = _counts(left)
            short = [name for name in competing if counts[name] < self.layers[name].least]
            if not short:
                alive.update(left)
                break
            for name in short:  # they keep their minimum, and the others lose more instead
                surplus = before[name] - self.layers[name].least
                own = prune_smallest([units[name]], [removable[name]], surplus, absolute)[0]
                alive[name] = _without(alive[name], removable[name], own)
                excess -= surplus
                rescued += [name] if counts[name] == 0 else []
            competing = [name for name in competing if name not in short]
        everywhere.update(alive)
        assert sum(_counts(alive).values()) == min(keep, sum(before.values())), "counts are exact"
        return rescued

    def _removable(self, name: str, scores: Tensor, alive: Tensor) -> Tensor:
        """Which units of a layer may be removed, so that the pattern holds and no norm becomes zero."""
        layer, pattern = self.layers[name], self.method.pattern
        removable = pattern.removable(scores, alive)
        if layer.norm_dims is None:
            return removable
        ranks = wide(scores).abs() if self._ranks_magnitudes else wide(scores)
        dims = pattern.unit_norm_dims(layer)
        return removable & ~largest(ranks.masked_fill(~alive, -math.inf), dims)


def _scaled(scores: dict[str, Tensor]) -> dict[str, Tensor]:
    """Divides scores by a power of two, so that their powers neither overflow nor vanish. Keeps their order."""
    largest = max(float(score.abs().max()) if score.numel() else 0.0 for score in scores.values())
    if not 0 < largest < math.inf:
        return scores
    limit = 1000 if all(score.dtype == torch.float64 for score in scores.values()) else 120
    scale = 2.0 ** -max(-limit, min(limit, math.frexp(largest)[1]))
    return {name: wide(score) * scale for name, score in scores.items()}


def _without(alive: Tensor, removable: Tensor, kept: Tensor) -> Tensor:
    """The survivors when only some of the removable units are kept."""
    return kept if removable is alive else alive & ~removable | kept


def _counts(masks: Mapping[str, Tensor]) -> dict[str, int]:
    return dict(zip(masks, sharding.count(list(masks.values())), strict=True))


def check_scores(
    criterion: Criterion, scores: Mapping[str, Tensor], masks: Mapping[str, Tensor], allow_equal: bool = False
) -> None:
    """Checks the scores of a criterion.

    Args:
        criterion: The criterion.
        scores: The scores that it returned.
        masks: The masks by name.
        allow_equal: Whether equal scores are acceptable, since the weights have not been trained.

    Raises:
        TrainingError: Names, shapes or types do not match the weights, or all scores are equal.
    """
    if not isinstance(scores, Mapping) or scores.keys() != masks.keys():
        raise TrainingError(f"{criterion} must return scores for {list(masks)}, but returned {scores!r:.200}.")
    for name, mask in masks.items():
        score = scores[name]
        if not isinstance(score, Tensor) or score.shape != mask.shape or not score.is_floating_point():
            what = f"{score.dtype} of shape {tuple(score.shape)}" if isinstance(score, Tensor) else repr(score)
            raise TrainingError(
                f"{criterion} must return floating-point scores of shape {tuple(mask.shape)} for {name!r}, but "
                f"returned {what}."
            )
    if not criterion.absolute and not allow_equal:
        _refuse_all_alike(criterion, scores)


def _refuse_all_alike(criterion: Criterion, scores: Mapping[str, Tensor]) -> None:
    first = next(iter(scores.values())).flatten()[:1]
    if all(bool((score == first).all()) for score in scores.values()):
        raise TrainingError(
            f"{criterion} gives all weights the same score, {float(first):g}, so that they would be removed by "
            "position. Does the loss depend on them?"
        )


def _check(pools: Sequence[Pool], layers: Sequence[Layer], sizes: Sizes, method: Method) -> None:
    """Checks that the pools of a scope are possible.

    Raises:
        ConfigurationError: They are not.
    """
    known, scope = {layer.name: layer for layer in layers}, method.scope
    names = [name for pool in pools for name in pool.names]
    if len(set(names)) < len(names) or not set(names) <= known.keys():
        raise ConfigurationError(f"The pools of {scope} must name layers, each at most once. They name {names}.")
    for pool in pools:
        units = sum(known[name].alive for name in pool.names)
        falls = all(later <= earlier for earlier, later in itertools.pairwise(pool.keep))
        if len(pool.keep) != sizes.last_round + 1 or pool.keep[0] != units or not falls:
            raise ConfigurationError(
                f"A pool of {scope} with {units} units keeps {list(pool.keep)}. It needs one number for each of "
                f"the rounds 0 to {sizes.last_round}; the first must be {units}, and the numbers must not rise."
            )
        least = sum(known[name].least for name in pool.names)
        if pool.keep[-1] < least:
            normed = any(known[name].norm_dims is not None for name in pool.names)
            norms = ", and one per norm that weights are divided by (weight_norm)" if normed else ""
            raise ConfigurationError(
                f"The last round would keep {pool.keep[-1]} of the {units} units of {', '.join(pool.names)}, but "
                f"{scope} and {method.pattern} keep at least {least}{norms}. Use a density of "
                f"{least / units:.4g} or more, or a smaller min_density."
            )
    totals = [sum(kept) for kept in zip(*(pool.keep for pool in pools), strict=True)]
    is_sparse = any(layer.removed for layer in layers)
    pairs = enumerate(itertools.pairwise(totals), start=1)
    if not pools or not all(sizes.allows(number, *pair, is_sparse) for number, pair in pairs):
        raise ConfigurationError(
            f"Each round must remove at least one unit, unless densities repeats the density before, but with "
            f"{scope} the rounds keep {totals or 'all'}. Use fewer rounds or other sizes."
        )
