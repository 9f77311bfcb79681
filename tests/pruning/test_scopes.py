import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_lottery import ERK, ConfigurationError, Global, Layer, Layerwise, Sizes
from lightning_lottery.pruning.scopes import by_layer, scope_of

LENET = [
    Layer("fc1.weight", (300, 784), units=300 * 784),
    Layer("fc2.weight", (100, 300), units=100 * 300),
    Layer("out.weight", (10, 100), units=10 * 100),
]
CONVOLUTIONS = [
    Layer("stem.weight", (16, 3, 3, 3), units=16 * 27),
    Layer("middle.weight", (64, 16, 3, 3), units=64 * 16 * 9),
    Layer("deep.weight", (512, 256, 3, 3), units=512 * 256 * 9),
    Layer("head.weight", (10, 512), units=5120),
]


def test_globally_all_layers_are_one_pool():
    (pool,) = Global().pools(LENET, Sizes(rounds=3, amount=0.2))
    assert pool.names == ("fc1.weight", "fc2.weight", "out.weight")
    assert pool.keep == (266_200, 212_960, 170_368, 136_294)


def test_the_lenet_of_the_paper():
    """20 % of every layer, 10 % of the last one (Frankle & Carbin 2018, figure 2)."""
    pools = Layerwise(layer_amounts={"last": 0.1}).pools(LENET, Sizes(rounds=2, amount=0.2))
    assert {pool.names: pool.keep for pool in pools} == {
        ("fc1.weight",): (235_200, 188_160, 150_528),
        ("fc2.weight",): (30_000, 24_000, 19_200),
        ("out.weight",): (1_000, 900, 810),
    }


def test_layerwise_with_densities_and_layers_that_are_left_alone():
    pools = Layerwise(layer_amounts={"out*": 0, "first": 0.5}).pools(LENET, Sizes(densities=[0.3, 0.1]))
    assert {pool.names: pool.keep for pool in pools} == {
        ("fc1.weight",): (235_200, 117_600, 58_800),
        ("fc2.weight",): (30_000, 9_000, 3_000),
    }


def test_a_layer_with_its_own_amount_loses_nothing_in_rounds_of_equal_density():
    pools = Layerwise(layer_amounts={"last": 0.1}).pools(LENET, Sizes(densities=[0.5, 0.5, 0.2]))
    assert {pool.names: pool.keep for pool in pools} == {
        ("fc1.weight",): (235_200, 117_600, 117_600, 47_040),
        ("fc2.weight",): (30_000, 15_000, 15_000, 6_000),
        ("out.weight",): (1_000, 900, 900, 810),
    }


def rigl_densities(shapes, density):
    """The rule in Evci et al. 2020 (arXiv:1911.11134) and their code: no density exceeds 1."""
    sizes = [int(np.prod(shape)) for shape in shapes]
    raw = [sum(shape) / np.prod(shape) for shape in shapes]
    dense: set[int] = set()
    while True:
        rest = density * sum(sizes) - sum(sizes[i] for i in dense)
        factor = rest / sum(raw[i] * sizes[i] for i in range(len(sizes)) if i not in dense)
        exceeding = {i for i in range(len(sizes)) if i not in dense and factor * raw[i] > 1}
        if not exceeding:
            return [1.0 if i in dense else factor * raw[i] for i in range(len(sizes))]
        dense |= {max(exceeding, key=lambda i: raw[i])}


@pytest.mark.parametrize("layers", [LENET, CONVOLUTIONS])
@pytest.mark.parametrize("density", [0.5, 0.2, 0.05, 0.01])
def test_erk_densities_are_those_of_the_paper(layers, density):
    pools = ERK().pools(layers, Sizes(densities=[density]))
    expected = rigl_densities([layer.shape for layer in layers], density)
    for pool, layer, wanted in zip(pools, layers, expected, strict=True):
        assert pool.names == (layer.name,)
        assert abs(pool.keep[1] - wanted * layer.units) <= 1
    assert sum(pool.keep[1] for pool in pools) == round(density * sum(layer.units for layer in layers))


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=6),
    st.floats(0.05, 0.6),
    st.integers(1, 5),
    st.floats(0, 0.1),
)
def test_erk_is_nested_and_exact_within_its_bounds(shapes, amount, rounds, least):
    layers = [Layer(f"l{i}", shape, units=shape[0] * shape[1]) for i, shape in enumerate(shapes)]
    layers = ERK(min_density=least, keep_alive=False).with_least(layers)
    sizes = Sizes(rounds, amount)
    try:
        counts = sizes.counts(sum(layer.units for layer in layers))
        pools = ERK().pools(layers, sizes)
    except ConfigurationError:
        return
    assert [sum(kept) for kept in zip(*(pool.keep for pool in pools), strict=True)] == counts
    for pool, layer in zip(pools, layers, strict=True):
        assert pool.keep[0] == layer.units
        assert all(later <= earlier for earlier, later in zip(pool.keep, pool.keep[1:], strict=False))
        assert pool.keep[-1] >= layer.least


def test_min_density_limits_every_layer():
    found = Global(min_density={"first": 1.0, "*.weight": 0.25}).with_least(LENET)
    assert [layer.least for layer in found] == [235_200, 7_500, 250]
    assert [layer.least for layer in Global().with_least(LENET)] == [1, 1, 1]
    assert [layer.least for layer in Global(keep_alive=False).with_least(LENET)] == [0, 0, 0]
    assert [layer.least for layer in Global(min_density={"out.weight": 0.5}).with_least(LENET)] == [1, 1, 500]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Global(min_density=1.5), "min_density=1.5 must be a number between 0 and 1"),
        (
            lambda: Layerwise(layer_amounts={"last": 1.0}),
            r"layer_amounts\['last'\]=1.0 must be a number from 0 to below 1",
        ),
        (
            lambda: Global(min_density={"fc9*": 0.5}).with_least(LENET),
            "contains 'fc9.', which matches no prunable",
        ),
        (
            lambda: by_layer(LENET, {"nothing": 1}, "layer_amounts"),
            "The prunable layers are: fc1.weight, fc2.weight, out.weight",
        ),
        (lambda: Layerwise(layer_amounts=0.1), "layer_amounts=0.1 must be a dictionary of amounts by name"),
        (lambda: Global(keep_alive="no"), "keep_alive='no' must be True or False"),
        (lambda: scope_of("Global"), "scope='Global' is not a scope"),
        (
            lambda: ERK().pools(Global(min_density=0.5).with_least(LENET), Sizes(densities=[0.1])),
            "26620 units cannot be distributed over layers that must keep 133100",
        ),
    ],
)
def test_invalid_values_are_refused_with_the_reason(make, message):
    with pytest.raises(ConfigurationError, match=message):
        make()


@pytest.mark.parametrize(("density", "units", "least"), [(0.05, 29, 2), (0.5, 5, 3), (0.3, 4, 2), (0.07, 100, 7)])
def test_min_density_is_kept_at_least(density, units, least):
    (layer,) = Global(min_density=density).with_least([Layer("a", (units, 1), units=units)])
    assert layer.least == least
