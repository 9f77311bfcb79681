import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lightning_lottery import Block, Channels, ConfigurationError, Layer, NofM, Unstructured
from lightning_lottery.pruning.patterns import pattern_of


def layer(*shape, kind=nn.Linear):
    return Layer("w", shape, kind)


def test_single_weights_are_their_own_units():
    scores, mask = torch.randn(3, 4), torch.rand(3, 4) < 0.5
    pattern = Unstructured()
    assert pattern.units((3, 4)) == 12
    assert pattern.scores(scores) is scores
    assert pattern.alive(mask) is pattern.removable(scores, mask) is pattern.mask(mask, (3, 4)) is mask


@given(
    st.sampled_from([(1, 2), (2, 4), (1, 4), (3, 5)]), st.sampled_from([(), (2,), (2, 3)]), st.integers(0, 2**31)
)
def test_the_n_largest_survivors_of_every_group_are_not_removable(numbers, kernel, seed):
    n, m = numbers
    generator = torch.Generator().manual_seed(seed)
    shape = (3, 2 * m, *kernel)
    scores = torch.randint(0, 4, shape, generator=generator).float()  # ties everywhere
    alive = torch.rand(shape, generator=generator) < 0.7
    found = NofM(n, m).removable(scores, alive)
    expected = torch.zeros_like(alive)
    for out in range(3):
        for place in itertools.product(*map(range, kernel)):
            for group in range(2):
                indices = [(out, group * m + i, *place) for i in range(m)]
                survivors = sorted((i for i in indices if alive[i]), key=lambda i: float(scores[i]))  # stable
                for index in survivors[: max(0, len(survivors) - n)]:
                    expected[index] = True
    assert torch.equal(found, expected)
    assert NofM(n, m).least(layer(*shape)) == alive.numel() // m * n


def test_the_norms_of_channels():
    weight = torch.randn(5, 3, 2, 2)
    for norm in (1, 2, 3.5):
        expected = torch.linalg.vector_norm(weight.flatten(1), ord=norm, dim=1)
        found = Channels(norm).scores(weight.abs())
        assert torch.allclose(found ** (1 / norm), expected)
    signed = torch.tensor([[1.0, -3.0], [0.5, 0.5]])
    assert Channels(1).scores(signed).tolist() == [-2.0, 1.0]
    assert Channels(2).scores(signed).tolist() == [-8.0, 0.5]


def test_half_precision_does_not_overflow():
    assert Channels().scores(torch.full((2, 1000), 100.0, dtype=torch.float16)).tolist() == [1e7, 1e7]


def test_channels_live_and_die_as_a_whole():
    pattern = Channels()
    alive = torch.tensor([True, False, True])
    mask = pattern.mask(alive, (3, 2, 5))
    assert mask.is_contiguous()
    assert mask.flatten(1).tolist() == [[kept] * 10 for kept in alive.tolist()]
    assert torch.equal(pattern.alive(mask), alive)
    assert pattern.units((3, 2, 5)) == 3
    last = Layer("w", (3, 2), nn.Linear, is_last=True)
    assert (pattern.least(last), pattern.least(layer(3, 2))) == (3, 0), "the outputs of the network stay"
    assert Channels(outputs=True).least(last) == 0


@given(st.integers(1, 7), st.integers(1, 7), st.integers(1, 4), st.integers(1, 4), st.booleans())
def test_blocks_cover_a_matrix_also_at_its_edges(rows, columns, h, w, is_kernel):
    shape = (rows, columns, 2) if is_kernel else (rows, columns)
    wide = columns * 2 if is_kernel else columns
    scores = torch.rand(shape)
    pattern = Block(h, w, norm=1)
    found = pattern.scores(scores)
    matrix = scores.reshape(rows, wide)
    expected = [[float(matrix[i : i + h, j : j + w].sum()) for j in range(0, wide, w)] for i in range(0, rows, h)]
    assert torch.allclose(found, torch.tensor(expected))
    assert pattern.units(shape) == found.numel()
    alive = torch.rand(found.shape) < 0.5
    mask = pattern.mask(alive, shape)
    assert mask.shape == shape
    for i in range(rows):
        for j in range(wide):
            assert mask.view(rows, wide)[i, j] == alive[i // h, j // w]
    assert torch.equal(pattern.alive(mask), alive)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NofM(4, 4), r"must have n < m. Write NofM\(2, 4\)"),
        (lambda: NofM(0, 4), "n=0 must be an integer of at least 1"),
        (lambda: Channels(norm=0), "norm=0 must be a number above 0"),
        (lambda: Block(0, 4), "h=0 must be an integer of at least 1"),
        (lambda: pattern_of("NofM"), "pattern='NofM' is not a pattern. Write an instance"),
        (
            lambda: NofM().check(layer(8, 6)),
            "'w' has 6 inputs, which is not a multiple of 4. Leave it out with",
        ),
        (lambda: NofM().check(layer(8, 8, kind=nn.LSTM)), "'w' belongs to LSTM. Leave it out with exclude"),
        (
            lambda: Channels().check(layer(8, 8, 3, 3, kind=nn.ConvTranspose2d)),
            "belongs to ConvTranspose2d",
        ),
        (lambda: Channels().check(layer(8)), r"'w' has shape \(8,\), like a bias. Remove it from include"),
        (lambda: Block().check(layer(8)), r"needs matrices, but 'w' has shape \(8,\)"),
    ],
)
def test_invalid_values_are_refused_with_the_reason(make, message):
    with pytest.raises(ConfigurationError, match=message):
        make()


def test_layers_that_go_with_a_pattern():
    NofM(2, 4).check(layer(3, 8, 3, 3, kind=nn.Conv2d))
    Channels().check(layer(3, 8))
    Block(4, 4).check(layer(3, 5, kind=nn.LSTM))
    assert pattern_of(None) == Unstructured()
