"""Contracts of criteria, scopes and patterns: over all of them, and over each scope with each pattern."""

import copy
from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lightning_lottery import ERK, ConfigurationError, Context, Global, Magnitude, NofM, Sizes
from lightning_lottery.pruning.layers import Layer
from lightning_lottery.pruning.method import Method, check_scores
from tests.helpers.contracts import CRITERIA, PATTERNS, SCOPES


@dataclass
class Batches:
    """Two batches of random numbers, and a loss that depends on all weights."""

    module: nn.Module
    made: list[tuple[Tensor, Tensor]] = field(init=False)

    def __post_init__(self):
        generator = torch.Generator().manual_seed(0)
        self.made = [
            (torch.randn(16, 8, generator=generator), torch.randint(4, (16,), generator=generator)) for _ in "ab"
        ]

    def batches(self, number):
        return self.made[:number]

    def loss(self, batch):
        return nn.functional.cross_entropy(self.module(batch[0]), batch[1])

    def average(self, tensors):
        return dict(tensors)

    def ones(self):
        return torch.ones(1, 8)


def context(seed=3, moved=True):
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 4))
    weights = {name: p for name, p in module.named_parameters() if p.dim() == 2}
    start = {name: w.detach() + (0.1 * torch.randn_like(w) if moved else 0) for name, w in weights.items()}
    masks = {name: torch.ones_like(w, dtype=torch.bool) for name, w in weights.items()}
    return Context(weights, start, masks, module, Batches(module), seed)


@pytest.mark.parametrize("criterion", CRITERIA, ids=repr)
def test_a_criterion_scores_every_weight_and_changes_nothing(criterion):
    given_context = context()
    before = {name: copy.deepcopy(getattr(given_context, name)) for name in ("weights", "start", "masks")}
    buffers = copy.deepcopy(given_context.module.state_dict())
    generator = torch.get_rng_state()
    scores = criterion.score(given_context)
    assert torch.equal(generator, torch.get_rng_state())
    for name, tensors in before.items():
        assert all(torch.equal(tensor, getattr(given_context, name)[key]) for key, tensor in tensors.items())
    assert all(torch.equal(value, given_context.module.state_dict()[key]) for key, value in buffers.items())
    assert given_context.module.training
    check_scores(criterion, scores, given_context.masks, allow_equal=False)
    assert all(score.isfinite().all() for score in scores.values())
    assert all(parameter.grad is None for parameter in given_context.module.parameters())


@pytest.mark.parametrize("criterion", CRITERIA, ids=repr)
def test_a_criterion_depends_only_on_its_context(criterion):
    first, second = (criterion.score(context()) for _ in "ab")
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("criterion", CRITERIA, ids=repr)
def test_a_criterion_says_whether_it_needs_training(criterion):
    scores = criterion.score(context(moved=False))
    values = torch.cat([score.detach().flatten() for score in scores.values()])
    assert criterion.needs_training == (values.unique().numel() == 1)
    assert criterion.iterations >= 1


LAYERS = [
    Layer("convolution.weight", (8, 4, 3, 3), nn.Conv2d),
    Layer("hidden.weight", (16, 32), nn.Linear),
    Layer("output.weight", (8, 16), nn.Linear, is_last=True),
]


def prune_all_rounds(method, layers, sizes, start=None):
    """The masks of all rounds for random magnitudes, as in a run."""
    pruner = method.plan(layers, sizes, start)
    generator = torch.Generator().manual_seed(5)
    weights = {layer.name: torch.randn(layer.shape, generator=generator) for layer in layers}
    masks = [start or {layer.name: torch.ones(layer.shape, dtype=torch.bool) for layer in layers}]
    for number in range(1, sizes.last_round + 1):
        made, _ = pruner.masks(
            number, masks[-1], lambda m: Context(weights, weights, m, nn.Module(), None, seed=0)
        )
        masks.append(made)
    return pruner, masks


@pytest.mark.parametrize("pattern", PATTERNS, ids=repr)
@pytest.mark.parametrize("scope", SCOPES, ids=repr)
def test_every_scope_keeps_exact_counts_of_nested_units_with_every_pattern(scope, pattern):
    pruner, masks = prune_all_rounds(Method(Magnitude(), scope, pattern), LAYERS, Sizes(densities=[0.8, 0.6]))
    pooled = [name for pool in pruner.pools for name in pool.names]
    assert len(pooled) == len(set(pooled)), "a layer competes in one pool"
    for number, made in enumerate(masks):
        alive = {name: pattern.alive(mask) for name, mask in made.items()}
        for name, mask in made.items():
            assert torch.equal(pattern.mask(alive[name], tuple(mask.shape)), mask), "whole units"
            assert number == 0 or not (mask & ~masks[number - 1][name]).any(), "nested"
        for pool in pruner.pools:
            assert pool.keep[number] == sum(int(alive[name].sum()) for name in pool.names)


@pytest.mark.parametrize("pattern", PATTERNS, ids=repr)
@pytest.mark.parametrize("scope", SCOPES, ids=repr)
@settings(max_examples=20, suppress_health_check=[HealthCheck.filter_too_much])
@given(
    density=st.floats(0.3, 0.99),
    seed=st.integers(0, 1000),
    sizes=st.sampled_from(
        [Sizes(2, amount=0.2), Sizes(2, target_density=0.1), Sizes(densities=[0.3, 0.2]), Sizes(1, amount=0.01)]
    ),
)
def test_rounds_that_start_from_any_ticket_have_exact_counts(scope, pattern, density, seed, sizes):
    generator = torch.Generator().manual_seed(seed)
    start = {layer.name: torch.rand(layer.shape, generator=generator) < density for layer in LAYERS}
    try:
        pruner, masks = prune_all_rounds(Method(Magnitude(), scope, pattern), LAYERS, sizes, start)
    except ConfigurationError:
        reject()  # a round would remove nothing, or too little may be removed
    for number, made in enumerate(masks):
        alive = {name: int(pattern.alive(mask).sum()) for name, mask in made.items()}
        assert pruner.counts[number] == sum(alive.values())
        for name, mask in made.items():
            assert number == 0 or not (mask & ~masks[number - 1][name]).any(), "nested"
            assert mask.any() or not (scope.keep_alive and start[name].any()), "no layer becomes empty"
        for pool in pruner.pools:
            assert pool.keep[number] == sum(alive[name] for name in pool.names)


@st.composite
def problems(draw):
    shapes = draw(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=5))
    layers = [Layer(f"{n}.weight", shape, nn.Linear, n == len(shapes) - 1) for n, shape in enumerate(shapes)]
    densities = sorted(draw(st.lists(st.floats(0.05, 0.95), min_size=1, max_size=4, unique=True)), reverse=True)
    return layers, Sizes(densities=densities)


@pytest.mark.parametrize("scope", SCOPES, ids=repr)
@settings(max_examples=60)
@given(problem=problems())
def test_pools_start_whole_never_rise_and_keep_what_must_stay(scope, problem):
    layers, sizes = problem
    try:
        pruner = Method(Magnitude(), scope, PATTERNS[0]).plan(layers, sizes)
    except ConfigurationError:
        reject()  # a round would remove nothing, or too little may be removed
    by_name = pruner.layers
    for pool in pruner.pools:
        assert pool.keep[0] == sum(by_name[name].units for name in pool.names)
        assert list(pool.keep) == sorted(pool.keep, reverse=True)
        assert pool.keep[-1] >= sum(by_name[name].least for name in pool.names)
        assert len(pool.keep) == sizes.last_round + 1
    if isinstance(scope, (Global, ERK)):
        assert pruner.counts == sizes.counts(sum(layer.units for layer in by_name.values()))


@pytest.mark.parametrize("pattern", PATTERNS, ids=repr)
@settings(max_examples=60)
@given(
    rows=st.integers(1, 4),
    columns=st.integers(1, 3),
    seed=st.integers(0, 1000),
    kernel=st.sampled_from([(), (3,)]),
)
def test_units_masks_and_scores_of_a_pattern_agree(pattern, rows, columns, seed, kernel):
    shape = (2 * rows, 4 * columns, *kernel)
    scores = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    units = pattern.scores(scores)
    assert units.numel() == pattern.units(shape)
    alive = torch.rand(units.shape, generator=torch.Generator().manual_seed(seed + 1)) < 0.7
    mask = pattern.mask(alive, shape)
    assert mask.shape == shape
    assert mask.dtype == torch.bool
    assert torch.equal(pattern.alive(mask), alive)
    removable = pattern.removable(units, alive)
    assert removable.shape == alive.shape
    if isinstance(pattern, NofM):
        left = (alive & ~removable).reshape(shape).transpose(1, -1).reshape(-1, pattern.m)
        had = alive.reshape(shape).transpose(1, -1).reshape(-1, pattern.m)
        assert torch.equal(left.sum(1), had.sum(1).clamp(max=pattern.n))


def test_groups_of_a_ticket_that_are_small_already_keep_what_they_have():
    start = {layer.name: torch.zeros(layer.shape, dtype=torch.bool) for layer in LAYERS[1:]}
    start["hidden.weight"][:, ::4] = True  # one of every four
    start["output.weight"][:] = True
    method = Method(Magnitude(), Global(), NofM(2, 4))
    pruner, masks = prune_all_rounds(method, LAYERS[1:], Sizes(1, amount=0.2), start)
    assert pruner.counts == [16 * 8 + 128, round(0.8 * 256)]
    assert torch.equal(masks[1]["hidden.weight"], start["hidden.weight"])
    with pytest.raises(ConfigurationError, match="keep at least 192"):
        method.plan(LAYERS[1:], Sizes(densities=[0.29]), start)
