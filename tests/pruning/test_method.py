import dataclasses
import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lightning_lottery import (
    ERK,
    Block,
    Channels,
    ConfigurationError,
    Context,
    Criterion,
    Global,
    Layer,
    Layerwise,
    Magnitude,
    NofM,
    Pool,
    Random,
    Scope,
    Sizes,
    TrainingError,
    Unstructured,
)
from lightning_lottery.pruning.layers import layers_of
from lightning_lottery.pruning.method import Method, largest
from lightning_lottery.pruning.prunable import select

SHAPES = {"a": (8, 12), "b": (6, 8), "c": (4, 4, 3, 3), "d": (5, 4)}
LAYERS = [
    Layer(name, shape, nn.Conv2d if len(shape) > 2 else nn.Linear, is_last=name == "d")
    for name, shape in SHAPES.items()
]


def dense():
    return {name: torch.ones(shape, dtype=torch.bool) for name, shape in SHAPES.items()}


def context_of(weights):
    return lambda masks: Context(weights, weights, masks, nn.Module(), None, 0)


def weights_of(seed, kind="normal"):
    generator = torch.Generator().manual_seed(seed)
    made = {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    if kind == "ties":
        return {name: (weight * 2).round() for name, weight in made.items()}
    if kind == "faint":
        made["b"] *= 1e-6  # the whole layer is removed first
    return made


def run(method, sizes, weights):
    """Masks, and what each round's pool keeps."""
    pruner, masks, every = method.plan(LAYERS, sizes), dense(), []
    for number in range(1, sizes.last_round + 1):
        masks, rescued = pruner.masks(number, masks, context_of(weights))
        every.append((masks, rescued))
    return pruner, every


PATTERNS = [Unstructured(), NofM(2, 4), Channels(), Channels(norm=1, outputs=True), Block(2, 2), Block(3, 5)]
SCOPES = [Global(), Layerwise(), ERK(), Global(min_density=0.3), Layerwise(layer_amounts={"last": 0.1})]


@pytest.mark.parametrize("kind", ["normal", "ties", "faint"])
@pytest.mark.parametrize(("scope", "pattern"), list(itertools.product(SCOPES, PATTERNS)))
def test_every_scope_composes_with_every_pattern(scope, pattern, kind):
    """Checks exact counts of units in every pool, nested masks, whole units, minimum sizes."""
    weights, sizes = weights_of(1, kind), Sizes(densities=[0.8, 0.6])
    pruner, every = run(Method(Magnitude(), scope, pattern), sizes, weights)
    before = dense()
    for number, (masks, _) in enumerate(every, start=1):
        units = {name: pattern.alive(mask) for name, mask in masks.items()}
        for pool in pruner.pools:
            assert sum(int(units[name].sum()) for name in pool.names) == pool.keep[number]
        for name, mask in masks.items():
            assert not (mask & ~before[name]).any()
            assert torch.equal(pattern.mask(units[name], SHAPES[name]) & dense()[name], mask)
            assert int(units[name].sum()) >= pruner.layers[name].least
            if isinstance(pattern, NofM):
                groups = mask.movedim(1, -1).unflatten(-1, (-1, 4)).sum(-1)
                assert groups.min() >= 2
        before = masks
    assert pruner.counts[-1] == sum(int(pattern.alive(mask).sum()) for mask in before.values())


def test_at_half_the_weights_two_of_four_stay_everywhere():
    _, every = run(Method(Magnitude(), Global(), NofM(2, 4)), Sizes(densities=[0.7, 0.5]), weights_of(0))
    weights = weights_of(0)
    for name, mask in every[-1][0].items():
        grouped = mask.movedim(1, -1).unflatten(-1, (-1, 4))
        assert grouped.sum(-1).eq(2).all()
        largest = weights[name].abs().movedim(1, -1).unflatten(-1, (-1, 4)).topk(2).indices
        assert grouped.gather(-1, largest).all()


@given(st.integers(0, 1000), st.floats(0.1, 0.9), st.sampled_from(["normal", "faint", "ties"]))
def test_floors_cost_as_little_as_possible(seed, density, kind):
    """The definition: the largest few of every layer stay; of all others, the smallest are removed."""
    weights, least = weights_of(seed, kind), 0.08
    sizes = Sizes(densities=[density])
    method = Method(Magnitude(), Global(min_density=least), Unstructured())
    pruner, ((masks, _),) = run(method, sizes, weights)
    entries = []
    for order, weight in enumerate(weights.values()):
        ranked = sorted(
            (value, position) for position, value in enumerate(weight.abs().flatten().tolist())
        )  # ties by position
        floor = max(1, round(least * weight.numel()))
        entries += [(value, order, position) for value, position in ranked[: len(ranked) - floor]]
    removed = sorted(entries)[: sum(w.numel() for w in weights.values()) - pruner.counts[1]]
    expected = dense()
    for _, order, position in removed:
        expected[list(SHAPES)[order]].view(-1)[position] = False
    assert all(torch.equal(masks[name], expected[name]) for name in masks)


def test_a_layer_that_would_become_empty_is_named_and_keeps_its_largest_weight():
    weights = weights_of(0, "faint")
    _, ((masks, rescued),) = run(Method(Magnitude(), Global(), Unstructured()), Sizes(densities=[0.2]), weights)
    assert rescued == ["b"]
    assert masks["b"].flatten().nonzero().item() == weights["b"].abs().argmax()
    method = Method(Magnitude(), Global(keep_alive=False), Unstructured())
    _, ((masks, rescued),) = run(method, Sizes(densities=[0.2]), weights)
    assert not rescued
    assert not masks["b"].any()


@dataclasses.dataclass(frozen=True)
class Shrinking(Criterion):
    """Magnitude in several iterations, recording what it has seen."""

    seen: list

    @property
    def iterations(self):
        return 4

    def score(self, context):
        self.seen.append(sum(int(mask.sum()) for mask in context.masks.values()))
        return {name: weight.abs() for name, weight in context.weights.items()}


def test_iterative_criteria_score_again_while_the_sizes_fall_geometrically():
    criterion = Shrinking([])
    weights, sizes = weights_of(0), Sizes(densities=[0.1, 0.05])
    _, every = run(Method(criterion, Global(), Unstructured()), sizes, weights)
    total = sum(w.numel() for w in weights.values())
    first, second = round(0.1 * total), round(0.05 * total)
    assert criterion.seen[:4] == [total] + [round(total * (first / total) ** (i / 4)) for i in (1, 2, 3)]
    assert criterion.seen[4:] == [first] + [round(first * (second / first) ** (i / 4)) for i in (1, 2, 3)]
    _, (_, once) = run(Method(Magnitude(), Global(), Unstructured()), sizes, weights)
    assert all(torch.equal(every[-1][0][name], mask) for name, mask in once[0].items())


@dataclasses.dataclass(frozen=True)
class Given(Criterion):
    """Returns what it was created with."""

    scores: object

    def score(self, context):
        return self.scores


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (None, "must return scores for"),
        ({"a": torch.rand(8, 12)}, "must return scores for"),
        ({**weights_of(0), "b": torch.rand(3)}, r"must return floating-point scores of shape \(6, 8\) for 'b'"),
        ({**weights_of(0), "b": torch.ones(6, 8, dtype=torch.long)}, "returned torch.int64"),
        ({**weights_of(0), "b": 1.0}, "returned 1.0"),
        ({**weights_of(0), "b": torch.full((6, 8), torch.nan)}, "'b' contain NaN"),
    ],
)
def test_invalid_scores_are_refused(scores, message):
    with pytest.raises(TrainingError, match=message):
        run(Method(Given(scores), Global(), Unstructured()), Sizes(densities=[0.5]), weights_of(0))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pools(Scope):
    made: tuple

    def pools(self, layers, sizes):
        return list(self.made)


@pytest.mark.parametrize(
    ("scope", "pattern", "message"),
    [
        (Global(), NofM(2, 4), "keep at least 154. Use a density of 0.5 or more"),
        (Layerwise(), NofM(2, 4), "keep at least 48. Use a density of 0.5 or more"),
        (Global(min_density=0.5), Unstructured(), "Global.* keep at least 154"),
        (Global(), Channels(), "keep at least 8. Use"),
        (ERK(), NofM(2, 4), "cannot be distributed over layers that must keep 154"),
        (Pools(made=(Pool(("a", "b"), (144, 50)), Pool(("b",), (48, 40)))), Unstructured(), "each at most once"),
        (Pools(made=(Pool(("x",), (144, 50)),)), Unstructured(), "must name layers"),
        (Pools(made=(Pool(("a",), (96, 97)),)), Unstructured(), "the numbers must not rise"),
        (Pools(made=(Pool(("a",), (90, 80)),)), Unstructured(), "the first must be 96"),
        (Pools(made=(Pool(("a",), (96,)),)), Unstructured(), "for each of the rounds 0 to 1"),
        (Pools(made=(Pool(("a",), (96, 96)),)), Unstructured(), "Each round must remove at least one unit"),
        (Pools(made=()), Unstructured(), "the rounds keep all"),
    ],
)
def test_plans_that_cannot_be_met_are_refused(scope, pattern, message):
    with pytest.raises(ConfigurationError, match=message):
        Method(Magnitude(), scope, pattern).plan(LAYERS, Sizes(densities=[0.1]))


def test_a_layer_in_no_pool_is_never_pruned():
    scope = Pools(made=(Pool(("a",), (96, 10)),))
    pruner, ((masks, _),) = run(Method(Magnitude(), scope, Unstructured()), Sizes(densities=[0.5]), weights_of(0))
    assert int(masks["a"].sum()) == 10
    assert all(masks[name].all() for name in ("b", "c", "d"))
    total = sum(mask.numel() for mask in masks.values())
    assert pruner.counts == [total, total - 86]


def test_layers_with_their_own_amounts_need_not_follow_the_common_sizes():
    scope = Layerwise(layer_amounts={"*": 0.1})
    pruner = Method(Magnitude(), scope, NofM(2, 4)).plan(LAYERS, Sizes(rounds=5, amount=0.2))
    assert pruner.counts[-1] > 0.5 * pruner.counts[0]


def test_a_network_that_a_pattern_cannot_prune_is_refused():
    with pytest.raises(ConfigurationError, match="keeps every weight of d, so nothing can be pruned"):
        Method(Magnitude(), Global(), Channels()).plan(LAYERS[-1:], Sizes(densities=[0.5]))


def test_erk_takes_numbers_without_dimensions():
    layers = [*LAYERS, Layer("scale", ())]
    pools = Method(Magnitude(), ERK(), Unstructured()).plan(layers, Sizes(densities=[0.5])).pools
    assert pools[-1].keep == (1, 1)


def test_scores_that_are_all_alike_are_refused():
    alike = {name: torch.ones(shape) for name, shape in SHAPES.items()}
    with pytest.raises(
        TrainingError, match="gives all weights the same score, 1, so that they would be removed by pos"
    ):
        run(Method(Given(alike), Global(), Unstructured()), Sizes(densities=[0.5]), weights_of(0))


def test_nan_is_refused_also_where_a_pattern_would_spare_it():
    weights = weights_of(0)
    weights["a"][0, 3] = torch.nan
    layers = [layer for layer in LAYERS if layer.shape[1] % 4 == 0 and layer.name != "d"]
    some = {layer.name: weights[layer.name] for layer in layers}
    pruner = Method(Magnitude(), Global(), NofM(2, 4)).plan(layers, Sizes(densities=[0.6]))
    masks = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in some.items()}
    with pytest.raises(TrainingError, match="'a' contain NaN"):
        pruner.masks(1, masks, context_of(some))


def test_random_channels_are_as_likely_in_every_layer():
    """Whatever the number of inputs: each of 8 narrow and 8 wide channels stays with probability 1/2."""
    layers = [Layer("narrow", (8, 2), nn.Linear), Layer("wide", (8, 500), nn.Linear)]
    weights = {layer.name: torch.randn(layer.shape) for layer in layers}
    pruner = Method(Random(), Global(), Channels()).plan(layers, Sizes(densities=[0.5]))
    kept = 0
    for seed in range(200):
        masks = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
        context = Context(weights, weights, masks, nn.Module(), None, seed)
        found, _ = pruner.masks(1, masks, lambda masks, c=context: dataclasses.replace(c, masks=masks))
        kept += int(found["narrow"].any(dim=1).sum())
    assert 700 < kept < 900  # 800 ± 14 (hypergeometric, one standard deviation)


def test_norms_of_enormous_and_tiny_scores_neither_overflow_nor_vanish():
    for scale, dtype in (
        (1e200, torch.float64),
        (1e-200, torch.float64),
        (1e30, torch.float32),
        (1e-30, torch.float32),
    ):
        plain = {name: weight.to(dtype) for name, weight in weights_of(3).items()}
        scaled = {name: weight * scale for name, weight in plain.items()}
        method = Method(Magnitude(), Global(), Channels())
        first, _ = method.plan(LAYERS, Sizes(densities=[0.5])).masks(1, dense(), context_of(plain))
        second, _ = method.plan(LAYERS, Sizes(densities=[0.5])).masks(1, dense(), context_of(scaled))
        assert all(torch.equal(mask, second[name]) for name, mask in first.items()), (scale, dtype)


@pytest.mark.parametrize("scope", [Layerwise(), ERK()])
def test_a_layer_that_only_keep_alive_protects_is_named(scope):
    layers = [Layer("large", (50, 40), nn.Linear), Layer("small", (2, 3), nn.Linear)]
    weights = {layer.name: torch.randn(layer.shape) for layer in layers}
    masks = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
    pruner = Method(Magnitude(), scope, Unstructured()).plan(layers, Sizes(densities=[0.5, 0.005]))
    masks, first = pruner.masks(1, masks, context_of(weights))
    masks, second = pruner.masks(2, masks, context_of(weights))
    assert first == []
    assert second == (["small"] if isinstance(scope, Layerwise) else [])  # ERK gives small layers more
    assert int(masks["small"].sum()) >= 1


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("scope", [Global(), Global(keep_alive=False), Layerwise(), ERK()], ids=str)
@pytest.mark.parametrize("pattern", [Unstructured(), Block(2, 4)], ids=str)
@pytest.mark.parametrize("make", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
def test_every_normalised_row_keeps_a_weight(scope, pattern, make):
    """Also where a whole row is smaller than all others; counts stay exact and the largest stays."""
    network = nn.Sequential(make(nn.Linear(64, 32)), nn.ReLU(), nn.Linear(32, 12))
    parameters = select(network).parameters
    name = next(iter(parameters))
    with torch.no_grad():
        parameters[name][:8] *= 1e-3
    pruner = Method(Magnitude(), scope, pattern).plan(layers_of(network, parameters), Sizes(densities=[0.3, 0.15]))
    masks = {n: torch.ones(p.shape, dtype=torch.bool) for n, p in parameters.items()}
    for number in (1, 2):
        masks, _ = pruner.masks(number, masks, lambda now: Context(parameters, parameters, now, network, None, 0))
        units = sum(int(pattern.alive(mask).count_nonzero()) for mask in masks.values())
        assert units == pruner.counts[number]
        assert masks[name].any(dim=1).all()
        if isinstance(pattern, Unstructured):
            largest = parameters[name].abs().argmax(dim=1, keepdim=True)
            assert masks[name].gather(1, largest).all()
    with torch.no_grad():
        for n, mask in masks.items():
            parameters[n].mul_(mask)
    assert network(torch.rand(3, 64)).isfinite().all()


def test_patterns_that_could_empty_a_normalised_row_are_refused():
    network = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(64, 32)), nn.Linear(32, 10))
    layers = layers_of(network, select(network).parameters)
    with pytest.raises(ConfigurationError, match=r"divided by norms along dimension 0.*exclude="):
        Method(Magnitude(), Global(), Channels()).plan(layers, Sizes(1, 0.5))
    Method(Magnitude(), Global(), NofM(2, 4)).plan(layers, Sizes(1, 0.25))


@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 1000))
def test_largest_agrees_with_a_loop(rows, columns, seed):
    scores = torch.randint(0, 4, (rows, columns), generator=torch.Generator().manual_seed(seed)).float()
    for dims in ((), (0,), (1,)):
        expected = torch.zeros(rows, columns, dtype=torch.bool)
        groups = {}
        for place in itertools.product(range(rows), range(columns)):
            groups.setdefault(tuple(place[d] for d in dims), []).append(place)
        for places in groups.values():  # in the order of position within the group; of equal ones, the last
            expected[max(places, key=lambda place: (scores[place], place))] = True
        assert torch.equal(largest(scores, dims), expected)
