import tracemalloc
import zlib
from math import log2

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_lottery.masks import CodedMask


@st.composite
def masks(draw):
    """Masks with survivors at random, in whole rows or columns, at the ends, or far from each other."""
    shape = tuple(draw(st.lists(st.integers(0, 40), min_size=1, max_size=3)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    mask = torch.rand(shape, generator=generator) < draw(st.sampled_from([0, 0.001, 0.03, 0.12, 0.2, 0.5, 0.9, 1]))
    kind = draw(st.sampled_from(["random", "rows", "columns", "ends"]))
    if kind == "rows" and mask.numel():
        mask = mask.flatten(1)[:, :1].expand(-1, mask[0].numel()).reshape(shape) if mask.dim() > 1 else mask
    elif kind == "columns" and mask.numel():
        mask = mask[:1].expand(shape)
    elif kind == "ends" and mask.numel():
        mask = torch.zeros(mask.numel(), dtype=torch.bool)
        mask[0] = mask[-1] = True
        mask = mask.view(shape)
    return mask


def decoded(coding, stored, size):
    """A slow decoder that follows the description of the format."""
    content = zlib.decompress(stored.numpy().tobytes())
    if coding == "bits":
        return [bool(content[at // 8] >> (7 - at % 8) & 1) for at in range(size)]
    mask, at = [False] * size, 0
    for gap in content:
        at += gap
        if gap < 255:
            mask[at] = True
            at += 1
    return mask


@settings(max_examples=300)
@given(masks())
def test_a_coded_mask_is_the_mask(mask):
    coded = CodedMask.of(mask)
    coding, stored = coded.encode()
    assert coding == ("gaps" if int(mask.sum()) < mask.numel() / 8 else "bits")
    assert decoded(coding, stored, mask.numel()) == mask.flatten().tolist()
    again = CodedMask.decode(coding, stored, mask.shape, int(mask.sum()))
    weight = torch.randn(mask.shape) + 5
    for each in (coded, again):
        values = each.gather(weight.flatten().numpy())
        assert np.array_equal(values, weight[mask].numpy())
        flat, expanded = each.expand(values)
        assert np.array_equal(flat, mask.flatten().numpy())
        assert np.array_equal(expanded, torch.where(mask, weight, 0).flatten().numpy())
        assert not np.shares_memory(expanded, values)


@pytest.mark.parametrize("density", [0.05, 0.5, 1.0])
def test_masks_of_more_than_one_part(density):
    mask = torch.rand(1500, 1500, generator=torch.Generator().manual_seed(0)) < density
    coded, weight = CodedMask.of(mask), torch.arange(1500 * 1500)
    values = coded.gather(weight.numpy())
    assert np.array_equal(values, weight[mask.flatten()].numpy())
    flat, expanded = coded.expand(values)
    assert np.array_equal(flat.reshape(1500, 1500), mask.numpy())
    assert np.array_equal(expanded, torch.where(mask.flatten(), weight, 0).numpy())


@pytest.mark.parametrize("gap", [253, 254, 255, 256, 509, 510, 511, 765, 766])
def test_gaps_of_more_than_a_byte(gap):
    mask = torch.zeros(2000, dtype=torch.bool)
    mask[[gap, 2 * gap + 1]] = True
    coding, stored = CodedMask.of(mask).encode()
    assert coding == "gaps"
    assert decoded(coding, stored, 2000) == mask.tolist()
    assert CodedMask.decode(coding, stored, (2000,), 2).positions.tolist() == [gap, 2 * gap + 1]


@pytest.mark.parametrize("density", [0.99, 0.9, 0.5, 0.2, 0.126, 0.124, 0.05, 0.01, 0.001])
def test_masks_take_little_more_than_their_entropy(density):
    mask = torch.rand(2_000_000, generator=torch.Generator().manual_seed(0)) < density
    entropy = -2_000_000 * (density * log2(density) + (1 - density) * log2(1 - density)) / 8
    allowed = {0.99: 1.5, 0.001: 1.11}.get(density, 1.05)
    assert len(CodedMask.of(mask).encode()[1]) < allowed * entropy + 100


@pytest.mark.parametrize("kept", [1, 10, 50, 90])
def test_masks_of_whole_rows_or_columns_take_next_to_nothing(kept):
    rows, columns = torch.zeros(1000, 1000, dtype=torch.bool), torch.zeros(1000, 1000, dtype=torch.bool)
    rows[torch.randperm(1000)[: kept * 10]] = True
    columns[:, :kept] = True
    assert len(CodedMask.of(rows).encode()[1]) < 8_000
    assert len(CodedMask.of(columns).encode()[1]) < 8_000


def packed(*gaps):
    return torch.frombuffer(bytearray(zlib.compress(bytes(gaps))), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("coding", "stored", "kept", "message"),
    [
        ("gaps", packed(3, 4), 3, "it has 3 values for 2 survivors"),
        ("gaps", packed(3, 200), 2, "goes beyond its 90 weights"),
        ("gaps", packed(3, 255), 1, "not end after at most 1 bytes"),
        ("gaps", torch.zeros(5, dtype=torch.uint8), 1, "cannot be decompressed"),
        ("gaps", packed(3)[:-1], 1, "not end"),
        ("gaps", torch.cat([packed(3), packed(3)]), 1, "not end"),
        ("gaps", torch.zeros(5), 1, "stored as torch.float32"),
        ("bits", packed(*[0] * 11), 0, "has 11 bytes; a mask of .* has 12"),
        ("bits", packed(*[0] * 13), 0, "not end after at most 12 bytes"),
        ("bits", packed(*[0] * 11, 1), 1, "more bits than a mask of"),
        ("bits", packed(*[255] * 2, *[0] * 10), 15, "15 values for 16 survivors"),
        ("bits", packed(*[0] * 12), 91, "91 values for 90 weights"),
        ("mask", torch.zeros(11, dtype=torch.uint8), 0, "has 11 bytes"),
        ("mask", torch.zeros(3, 4, dtype=torch.uint8), 0, "of shape"),
    ],
)
def test_what_is_not_a_mask_is_refused(coding, stored, kept, message):
    with pytest.raises(ValueError, match=message):
        CodedMask.decode(coding, stored, (9, 10), kept)


def test_gaps_that_end_in_an_escape_are_refused():
    with pytest.raises(ValueError, match="goes beyond"):
        CodedMask.decode("gaps", packed(3, 255), (1000,), 1)


@pytest.mark.parametrize("coding", ["bits", "gaps"])
def test_a_stream_that_expands_without_end_is_not_expanded(coding):
    bomb = torch.frombuffer(bytearray(zlib.compress(bytes(10**8))), dtype=torch.uint8)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="does not end after at most"):
            CodedMask.decode(coding, bomb, (9, 10), 5)
        assert tracemalloc.get_traced_memory()[1] < 10**6
    finally:
        tracemalloc.stop()
