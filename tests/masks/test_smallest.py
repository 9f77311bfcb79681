import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_lottery import masks
from lightning_lottery.errors import ConfigurationError, TrainingError
from tests.helpers.sorting import problems, smallest_by_sorting


@settings(max_examples=300)
@given(problems(), st.booleans())
def test_selection_is_that_of_sorting(problem, magnitude):
    scores, alive, k = problem
    before = [mask.clone() for mask in alive]
    kept = masks.prune_smallest(scores, alive, k, magnitude=magnitude)
    expected = smallest_by_sorting(scores, alive, k, magnitude)
    assert all(torch.equal(a, b) for a, b in zip(kept, expected, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(alive, before, strict=True)), "the given masks were changed"
    assert sum(int(m.sum()) for m in kept) == sum(int(m.sum()) for m in alive) - k
    assert not any((new & ~old).any() for new, old in zip(kept, alive, strict=True)), "masks must be nested"


def test_weights_of_several_types_are_ranked_by_their_values():
    scores = {"a": torch.tensor([1.0005, 1.0007, 5.0]), "b": torch.tensor([1.0, 2.0]).bfloat16()}
    kept = masks.prune_smallest(scores, None, 2)
    assert kept["a"].tolist() == [False, True, True]
    assert kept["b"].tolist() == [False, True]


def test_no_masks_mean_all_alive_and_names_are_kept():
    scores = {"b": torch.tensor([3.0, 1.0]), "a": torch.tensor([[2.0], [-4.0]])}
    kept = masks.prune_smallest(scores, None, 2)
    assert list(kept) == ["b", "a"]
    assert kept["b"].tolist() == [True, False]
    assert kept["a"].tolist() == [[True], [False]]


def test_ten_thousand_random_weights_lose_exactly_k():
    scores = {f"layer{i}": torch.randn(100, 25) for i in range(4)}
    kept = masks.prune_smallest(scores, None, 3333, magnitude=True)
    assert masks.kept(kept) == 10_000 - 3333
    assert masks.density(kept) == pytest.approx(0.6667)
    survivors = torch.cat([scores[name][kept[name]].abs() for name in scores])
    removed = torch.cat([scores[name][~kept[name]].abs() for name in scores])
    assert removed.max() <= survivors.min()


def test_nan_among_survivors_is_refused_by_name_and_elsewhere_ignored():
    scores = {"fine": torch.ones(3), "broken": torch.tensor([1.0, torch.nan])}
    with pytest.raises(TrainingError, match="'broken' contain NaN"):
        masks.prune_smallest(scores, None, 1)
    alive = {"fine": torch.ones(3, dtype=torch.bool), "broken": torch.tensor([True, False])}
    assert masks.kept(masks.prune_smallest(scores, alive, 1)) == 3


@pytest.mark.parametrize(("k", "allowed"), [(-1, "of at least 0"), (5, "from 0 to 4"), (1.0, "of at least 0")])
def test_k_out_of_range_is_refused(k, allowed):
    with pytest.raises(ConfigurationError, match=f"k={k} must be an integer {allowed}"):
        masks.prune_smallest([torch.rand(4)], None, k)


def test_masks_of_other_names_or_shapes_are_refused():
    with pytest.raises(ConfigurationError, match="Pass a mask for each"):
        masks.prune_smallest({"a": torch.rand(2)}, {"b": torch.ones(2, dtype=torch.bool)}, 1)
    with pytest.raises(ConfigurationError, match=r"In masks, 'tensor 0' .* scores' shape \(2,\)"):
        masks.prune_smallest([torch.rand(2)], [torch.ones(3, dtype=torch.bool)], 1)
    with pytest.raises(ConfigurationError, match="must be boolean"):
        masks.prune_smallest({"a": torch.rand(2)}, {"a": torch.ones(2)}, 1)


@given(st.lists(st.booleans(), max_size=70))
def test_packing_round_trips_and_is_numpy_s(bits):
    import numpy as np

    mask = torch.tensor(bits, dtype=torch.bool)
    packed = masks.pack(mask)
    assert packed.tolist() == np.packbits(np.array(bits, dtype=bool)).tolist()
    assert torch.equal(masks.unpack(packed, mask.shape), mask)


def test_unpacking_the_wrong_number_of_bytes_is_refused():
    with pytest.raises(ValueError, match="cannot be a mask"):
        masks.unpack(torch.zeros(2, dtype=torch.uint8), (3, 2))


def test_fingerprint_depends_on_every_bit_and_name_but_not_on_order():
    one, two = torch.tensor([True, False, True]), torch.tensor([True, True])
    first = masks.fingerprint({"a": one, "b": two})
    assert first == masks.fingerprint({"b": two.clone(), "a": one.clone()})
    assert first != masks.fingerprint({"a": ~one, "b": two})
    assert first != masks.fingerprint({"c": one, "b": two})
    assert first != masks.fingerprint({"a": one.view(3, 1), "b": two})
