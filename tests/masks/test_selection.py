from itertools import accumulate

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.profiler import ProfilerActivity, profile

from lightning_lottery import masks
from lightning_lottery.errors import ConfigurationError, TrainingError
from lightning_lottery.masks import selection
from lightning_lottery.masks.selection import kth, ordered_keys
from tests.helpers.sorting import problems, smallest_by_sorting


def by_sorting(scores, alive, k, magnitude):
    """The definition, by one stable sort over everything."""
    together = torch.cat([score.flatten().double() for score in scores])
    lives = torch.cat([mask.flatten() for mask in alive])
    order = (together.abs() if magnitude else together).argsort(stable=True)
    lives[order[lives[order]][:k]] = False
    return [
        part.view(score.shape)
        for part, score in zip(lives.split([s.numel() for s in scores]), scores, strict=True)
    ]


@settings(max_examples=300)
@given(problem=problems(), magnitude=st.booleans())
def test_seams_between_chunks_do_not_matter(problem, magnitude):
    scores, alive, k = problem
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"_SMALL": 4, "_MANY": 4, "_SMALLEST": 8, "_SHORT": 8, "_LARGEST": 16}.items():
            patch.setattr(selection, name, value)
        kept = masks.prune_smallest(scores, alive, k, magnitude=magnitude)
    expected = smallest_by_sorting(scores, alive, k, magnitude)
    assert all(torch.equal(a, b) for a, b in zip(kept, expected, strict=True))


def made(kind, generator):
    """300,000 scores in tensors of very different sizes."""
    shapes = [(300, 700), (7,), (1,), (89, 991), *[(3,)] * 300, (64, 10)]
    scores = [torch.randn(shape, generator=generator) for shape in shapes]
    if kind in ("float64", "bfloat16", "float16"):
        return [score.to(getattr(torch, kind)) for score in scores]
    if kind == "few values":
        return [(score * 2).round() for score in scores]
    if kind == "half zeros":
        return [score.relu() for score in scores]
    if kind == "all equal":
        return [torch.ones_like(score) for score in scores]
    if kind == "extremes":
        special = torch.tensor([0.0, -0.0, float("inf"), -float("inf"), 1e-45, -1e-45, 1e38, 2.0])
        return [special[(score.abs() * 3).long().clamp(max=7)] for score in scores]
    if kind == "subnormal":
        return [score * 1e-41 for score in scores]
    if kind == "mixed":
        scores[0], scores[3] = scores[0].double(), scores[3].bfloat16()
    if kind == "transposed":
        scores[0] = torch.randn(700, 300, generator=generator).t()
    if kind == "sorted":  # a line of the sample is not representative
        scores[0] = scores[0].flatten().sort().values.view(shapes[0])
    return scores


KINDS = [
    "normal", "float64", "bfloat16", "float16", "few values", "half zeros", "all equal", "extremes", "subnormal",
    "mixed", "transposed", "sorted",
]  # fmt: skip


@pytest.mark.parametrize("magnitude", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_three_hundred_thousand_scores(kind, magnitude):
    generator = torch.Generator().manual_seed(0)
    scores, alive = made(kind, generator), None
    survivors = total = sum(score.numel() for score in scores)
    for fraction in (0.2, 0.0001, 0.9, 0.5, 0.99):
        k = round(fraction * survivors)
        expected = by_sorting(
            scores, alive or [torch.ones(s.shape, dtype=torch.bool) for s in scores], k, magnitude
        )
        alive = masks.prune_smallest(scores, alive, k, magnitude)
        survivors -= k
        assert all(torch.equal(a, b) for a, b in zip(alive, expected, strict=True)), (fraction, survivors, total)
    assert sum(int(mask.sum()) for mask in alive) == survivors


@pytest.mark.parametrize("miss", ["above", "below", "empty"])
def test_selection_is_exact_when_the_bracket_misses(monkeypatch, miss):
    low, high = {"above": (1.0, 1.1), "below": (-9.0, -8.0), "empty": (0.3, 0.3)}[miss]
    brackets = []
    monkeypatch.setattr(selection, "_bracket", lambda *_: brackets.append(1) or (low, high))
    scores = [torch.randn(20_000, generator=torch.Generator().manual_seed(1))]
    kept = masks.prune_smallest(scores, None, 4_000)
    assert len(brackets) == 2, "once more, with a wider one"
    assert torch.equal(kept[0], by_sorting(scores, [torch.ones(20_000, dtype=torch.bool)], 4_000, False)[0])


def test_masks_are_written_to_out():
    scores, alive = {"w": torch.randn(40_000)}, {"w": torch.rand(40_000) < 0.5}
    out = {"w": torch.empty(40_000, dtype=torch.bool)}
    expected = masks.prune_smallest(scores, alive, 1_000)
    assert masks.prune_smallest(scores, alive, 1_000, out=out)["w"] is out["w"]
    assert torch.equal(out["w"], expected["w"])
    masks.prune_smallest(scores, alive, 0, out=out)
    assert torch.equal(out["w"], alive["w"])
    with pytest.raises(ConfigurationError, match="must not share memory with masks"):
        masks.prune_smallest(scores, alive, 1, out=alive)
    with pytest.raises(ConfigurationError, match="must be boolean"):
        masks.prune_smallest(scores, alive, 1, out={"w": torch.empty(40_000)})


@pytest.mark.parametrize("size", [100, 50_000])
def test_nan_is_refused_at_any_size_and_infinities_are_not(size):
    scores = {"fine": torch.randn(size), "broken": torch.randn(size)}
    scores["broken"][size // 2] = torch.nan
    for magnitude in (False, True):
        with pytest.raises(TrainingError, match="'broken' contain NaN"):
            masks.prune_smallest(scores, None, size, magnitude)
    alive = {name: torch.ones(size, dtype=torch.bool) for name in scores}
    alive["broken"][size // 2] = False
    scores["fine"][0], scores["fine"][1] = float("inf"), float("-inf")  # whose sum is NaN too
    kept = masks.prune_smallest(scores, alive, size)
    assert masks.kept(kept) == size - 1
    assert kept["fine"][:2].tolist() == [True, False]


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=40), st.data())
def test_the_kth_key_and_the_number_of_equal_ones(keys, data):
    k = data.draw(st.integers(1, len(keys)))
    parts = [torch.tensor(keys[:3]), torch.tensor(keys[3:], dtype=torch.int64)]
    found, ties = kth(lambda: parts, k, 32, torch.device("cpu"), False)
    assert found == sorted(keys)[k - 1]
    assert ties == k - sum(key < found for key in keys)


@given(st.sampled_from([32, 64]), st.data())
def test_the_order_of_keys_is_that_of_the_numbers(bits, data):
    values = data.draw(st.lists(st.floats(allow_nan=False, width=bits), min_size=1, max_size=40))
    numbers = torch.tensor(values, dtype=torch.float64 if bits == 64 else torch.float32)
    keys = ordered_keys(numbers)
    k = data.draw(st.integers(1, len(values)))
    found, ties = kth(lambda: [keys], k, bits, torch.device("cpu"), False)
    threshold = sorted(values)[k - 1]
    assert set(numbers[keys == found].tolist()) == {threshold}
    assert ties == k - sum(value < threshold for value in values)


@pytest.mark.parametrize("magnitude", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_counts_are_exact_for_constant_lines_and_a_sum_of_nan(seed, magnitude):
    """Ignored NaN, infinities of both signs, rows of different scales: brackets miss."""
    generator = torch.Generator().manual_seed(seed)
    score = torch.randn(256, 512, generator=generator) * 10 ** torch.randn(256, 1, generator=generator)
    score[3, 5], score[7, 7] = float("inf"), float("-inf")
    score[0, 0] = torch.nan
    alive = torch.ones(256, 512, dtype=torch.bool)
    alive[0, 0] = False
    for fraction in (0.05, 0.5, 0.9):
        k = round(fraction * 131_071)
        (kept,) = masks.prune_smallest([score], [alive], k, magnitude)
        (expected,) = by_sorting(
            [score.nan_to_num(posinf=float("inf"), neginf=-float("inf"))], [alive], k, magnitude
        )
        assert torch.equal(kept, expected)


@pytest.mark.parametrize("has_masks", [False, True])
@pytest.mark.parametrize("way", ["bracket", "wide bracket", "digits"])
def test_peak_memory_with_the_new_mask_is_at_most_14_bytes_for_ten_weights(monkeypatch, way, has_masks):
    """As counted by PyTorch's allocator, for every path of the selection."""
    size = 10_000_000
    weight = torch.randn(size, generator=torch.Generator().manual_seed(0))
    alive = [weight > -1] if has_masks else None
    if way == "wide bracket":
        monkeypatch.setattr(selection, "_WIDTHS", (16.0,))
    if way == "digits":
        monkeypatch.setattr(selection, "_sweep", lambda *_: None)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        (kept,) = masks.prune_smallest([weight], alive, size // 2, magnitude=True)
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = list(accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())))
    assert kept.numel() <= max(live) <= 1.4 * size


@pytest.mark.parametrize("alive", [False, True])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.8])
def test_many_equal_scores_are_removed_by_position_without_radix_selection(monkeypatch, alive, share):
    generator = torch.Generator().manual_seed(2)
    scores = [torch.randn(500, 700, generator=generator).relu(), torch.randn(9, generator=generator).relu()]
    masks_before = [torch.rand(score.shape, generator=generator) < 0.9 for score in scores] if alive else None
    lives = masks_before or [torch.ones_like(score, dtype=torch.bool) for score in scores]
    k = int(share * sum(int(mask.sum()) for mask in lives))
    monkeypatch.setattr(selection, "kth", None)
    kept = masks.prune_smallest(scores, masks_before, k)
    assert all(torch.equal(*both) for both in zip(kept, by_sorting(scores, lives, k, False), strict=True))
    scores[0][0, 0] = torch.nan
    if alive:
        masks_before[0][0, 0] = True
    with pytest.raises(TrainingError, match="contain NaN"):
        masks.prune_smallest(scores, masks_before, k)


def test_integers_and_overlapping_or_strided_places_are_refused():
    with pytest.raises(ConfigurationError, match=r"must be floating-point numbers"):
        masks.prune_smallest([torch.arange(4)], None, 2)
    score, out = torch.randn(4, 3), torch.ones(3, 4, dtype=torch.bool).t()
    with pytest.raises(ConfigurationError, match="must be contiguous"):
        masks.prune_smallest([score], None, 2, out=[out])
    place = torch.ones(4, 3, dtype=torch.bool)
    with pytest.raises(ConfigurationError, match="no two of them may share memory"):
        masks.prune_smallest([score, score], None, 2, out=[place, place])


def test_a_mask_of_another_layout_is_copied_once():
    score = torch.randn(700, 900).t()
    alive = (torch.rand(700, 900) < 0.8).t()
    kept = masks.prune_smallest([score], [alive], 5000)
    assert torch.equal(kept[0], by_sorting([score], [alive], 5000, False)[0])
