"""Exact selection of the smallest scores over many tensors, without copying them.

A sample brackets the k-th smallest score; one pass in chunks that fit into a cache writes the new masks and
collects the few scores inside the bracket, among which the selection is exact. If many scores are equal
to an end of the bracket, two passes select among them by position. If the bracket misses, and always for sharded
tensors, a radix selection finds the k-th score, 11 bits per pass.

Besides the new masks (one byte per weight), this needs at most 0.4 bytes per weight for 10 million weights or
more, and a few MB for fewer.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, distributed

from lightning_lottery.masks import sharding
from lightning_lottery.masks.chunks import Chunk, Chunks

_SMALL = 1 << 13  # entries; with fewer, all are collected
_MANY = 1 << 17  # entries that may always be collected
_LARGEST, _SMALLEST = 1 << 20, 1 << 17  # entries per chunk
_SHORT = 1 << 14  # entries of a chunk in radix selection, which needs ten times the memory
_WIDTHS = (3.3, 16.0)  # half-widths of the bracket, in standard deviations; the first misses 1 in 1,000
_CROWDED = 1 << 14  # words of a chunk that contain a mark; usually there are a few thousand
_LINE = 16  # entries drawn together for the sample: a cache line
_DIGIT = 11  # bits: a histogram of 2,048 counts is 16 kB to reduce
_INFINITE = float("inf")


@dataclass(frozen=True)
class SmallestScores:
    """The tensors to select from.

    Attributes:
        scores: Floating-point tensors on any device, sharded or not.
        masks: The survivors, boolean, of the same shapes; ``None`` means all.
        out: Boolean tensors of the same shapes, contiguous, for the new masks. They must not share
            memory with ``masks``.
        magnitude: Whether to rank by the absolute value of the scores.
    """

    scores: Sequence[Tensor]
    masks: Sequence[Tensor] | None
    out: Sequence[Tensor]
    magnitude: bool

    def remove(self, k: int, survivors: int) -> bool:
        """Removes the ``k`` survivors of smallest score and writes the new masks.

        Equal scores are removed in the order of tensor and flat index. Collective if tensors are sharded.

        Args:
            k: How many to remove, 1 to the number of survivors.
            survivors: Number of survivors in all processes.

        Returns:
            Whether the scores may contain NaN.
        """
        if not any(map(sharding.is_sharded, self.scores)):
            chunks, may_hold_nan = self._chunks(64, _SMALLEST), False
            for width in _WIDTHS if chunks.total > _SMALL else (_INFINITE,):
                low, high = _bracket(chunks, k / survivors, width)
                found = _sweep(chunks, low, high)
                if found is None:  # many scores are equal
                    for value in {low, high}:
                        total = _settle_ties(chunks, value, k)
                        if total is not None:
                            return bool(total.isnan())
                    break
                below = survivors - found.above - found.inside
                may_hold_nan |= found.may_hold_nan
                if below <= k <= below + found.inside:
                    _settle(chunks, found, k - below)
                    return may_hold_nan
        return self._remove_by_digits(k)

    def _chunks(self, parts: int, smallest: int, which: Sequence[int] | None = None) -> Chunks:
        total = sum(sharding.local(score).numel() for score in self.scores)
        size = max(smallest, min(_LARGEST, 1 << (total // parts).bit_length() >> 1))
        return Chunks(self.scores, self.masks, self.out, self.magnitude, size, which)

    def _remove_by_digits(self, k: int) -> bool:
        """Radix selection: several passes over all entries, in one process or over shards."""
        is_sharded = any(map(sharding.is_sharded, self.scores))
        counted = [i for i, score in enumerate(self.scores) if not is_sharded or sharding.counts_here(score)]
        everything, here = self._chunks(256, _SHORT), self._chunks(256, _SHORT, counted)
        bits = 64 if everything.dtype == torch.float64 else 32
        total = torch.zeros((), dtype=everything.dtype, device=everything.device)

        def survivors(chunk: Chunk, chosen: Tensor) -> Tensor:
            return (chosen if chunk.alive is None else chosen & chunk.alive).nonzero().flatten()

        def keys() -> Iterator[Tensor]:
            for chunk in here:
                ordered = ordered_keys(chunk.values)
                yield ordered if chunk.alive is None else ordered[chunk.alive]

        def ties() -> Iterator[Tensor]:
            for chunk in here:
                yield here.positions(chunk, survivors(chunk, ordered_keys(chunk.values) == threshold))

        threshold, first = kth(keys, k, bits, everything.device, is_sharded)
        entries = sum(score.numel() for score in self.scores)
        last, _ = kth(ties, first, entries.bit_length(), everything.device, is_sharded)
        for chunk in everything:
            total += chunk.values.sum()
            ordered = ordered_keys(chunk.values)
            torch.gt(ordered, threshold, out=chunk.kept)
            if chunk.alive is not None:
                chunk.kept.logical_and_(chunk.alive)
            equal = survivors(chunk, ordered == threshold)
            chunk.kept[equal] = everything.positions(chunk, equal) > last
            everything.store(chunk)
        may_hold_nan = total.isnan().long()
        if is_sharded:
            distributed.all_reduce(may_hold_nan)
        return bool(may_hold_nan)


@dataclass
class _Found:
    """The result of one pass.

    Attributes:
        above: Number of survivors above the bracket.
        inside: Number of survivors inside the bracket.
        may_hold_nan: Whether the sum of all values is NaN.
        values: Values of the survivors inside, one tensor per chunk.
        places: Their places in the chunks.
        pieces: The pieces of these chunks.
    """

    above: int = 0
    inside: int = 0
    may_hold_nan: bool = False
    values: list[Tensor] = field(default_factory=list)
    places: list[Tensor] = field(default_factory=list)
    pieces: list[Any] = field(default_factory=list)


def _bracket(chunks: Chunks, fraction: float, width: float) -> tuple[float, float]:
    """Estimates an interval that contains a quantile of the survivors.

    Args:
        chunks: All values.
        fraction: The quantile, in (0, 1].
        width: Half-width of the bracket, in standard deviations of the number of samples below the quantile.
    """
    if width == _INFINITE:
        return -_INFINITE, _INFINITE
    drawn = chunks.sample(int(2 * chunks.total ** (2 / 3)), _LINE)
    expected = drawn.numel() * fraction
    margin = width * (expected * (1 - fraction)) ** 0.5 + 1
    first, last = int(expected - margin), int(expected + margin) + 1
    low = float(drawn.kthvalue(first).values) if first >= 1 else -_INFINITE
    high = float(drawn.kthvalue(last).values) if last <= drawn.numel() else _INFINITE
    return low, high


def _sweep(chunks: Chunks, low: float, high: float) -> _Found | None:
    """Keeps what is above a bracket and collects what is inside; ``None`` if that is too much."""
    found = _Found()
    total = torch.zeros((), dtype=chunks.dtype, device=chunks.device)
    above = torch.zeros((), dtype=torch.int64, device=chunks.device)
    limit = max(_MANY, chunks.total // 80)
    for chunk in chunks:
        total += chunk.values.sum()
        # Comparing into numbers and converting those to booleans is several times faster.
        chunk.kept.copy_(torch.gt(chunk.values, high, out=chunk.numbers))
        if chunk.alive is None:  # the sum of ones is exact, since a chunk has fewer than 2^24 entries
            above += chunk.numbers.sum().to(torch.int64)
        inside = chunk.marks[: chunk.values.numel()]
        inside.copy_(torch.ge(chunk.values, low, out=chunk.numbers)).logical_xor_(chunk.kept)
        if chunk.alive is not None:
            chunk.kept.logical_and_(chunk.alive)
            inside.logical_and_(chunk.alive)
            above += chunk.numbers.copy_(chunk.kept).sum().to(torch.int64)
        chunks.store(chunk)
        words = chunk.marks.view(torch.int64).nonzero().flatten()
        if words.numel() > _CROWDED and found.inside + int(chunk.marks.count_nonzero()) > limit:
            return None  # before storing all their places takes too much memory
        places = _true_of(chunk.marks, words)
        found.inside += places.numel()
        if found.inside > limit:
            return None
        found.values.append(chunk.values.index_select(0, places))
        found.places.append(places)
        found.pieces.append(chunk.pieces)
    found.above, found.may_hold_nan = int(above), bool(total.isnan())
    return found


def _true_of(marks: Tensor, words: Tensor) -> Tensor:
    """Indices of the true entries, fast if they are few: only nonzero words of eight bytes are inspected."""
    inside = marks.view(-1, 8).index_select(0, words).flatten().nonzero().flatten()
    return words.index_select(0, inside >> 3) * 8 + (inside & 7)


def _settle(chunks: Chunks, found: _Found, k: int) -> None:
    """Keeps all survivors inside the bracket except the ``k`` smallest."""
    values = torch.cat(found.values)
    keep = torch.ones_like(values, dtype=torch.bool)
    if 0 < k <= values.numel():
        threshold = values.kthvalue(k).values
        torch.gt(values, threshold, out=keep)
        ties = (values == threshold).nonzero().flatten()
        keep[ties[k - (values.numel() - int(keep.count_nonzero()) - ties.numel()) :]] = True
    parts = torch.split(keep, [places.numel() for places in found.places])
    for pieces, places, kept in zip(found.pieces, found.places, parts, strict=True):
        chunks.keep(pieces, places[kept])


def _settle_ties(chunks: Chunks, value: float, k: int) -> Tensor | None:
    """Writes the new masks if the k-th smallest survivor has this value, and returns the sum of all values."""
    below, equal = (torch.zeros((), dtype=torch.int64, device=chunks.device) for _ in range(2))
    total = torch.zeros((), dtype=chunks.dtype, device=chunks.device)
    for chunk in chunks:
        total += chunk.values.sum()
        for count, compare in ((below, torch.lt), (equal, torch.eq)):
            compare(chunk.values, value, out=chunk.kept)
            count += (chunk.kept if chunk.alive is None else chunk.kept.logical_and_(chunk.alive)).count_nonzero()
    going = k - int(below)
    if not 0 < going <= int(equal):
        return None
    for chunk in chunks:
        ties = chunk.marks[: chunk.values.numel()]
        torch.eq(chunk.values, value, out=ties)
        torch.gt(chunk.values, value, out=chunk.kept)
        if chunk.alive is not None:
            ties.logical_and_(chunk.alive)
            chunk.kept.logical_and_(chunk.alive)
        here = int(ties.count_nonzero())
        if going < here:  # only the first of these are removed
            ties[ties.nonzero().flatten()[:going]] = False
            chunk.kept.logical_or_(ties)
        going -= min(here, going)
        chunks.store(chunk)
    return total


def ordered_keys(values: Tensor) -> Tensor:
    """Maps values to integers in the same order.

    Args:
        values: float32 (the keys are not negative) or float64 (keys of both signs).

    Returns:
        int64, of the same shape; 0 and -0 have equal keys.
    """
    bits, integer = (32, torch.int32) if values.dtype == torch.float32 else (64, torch.int64)
    pattern = (values + 0.0).view(integer).to(torch.int64)  # -0 + 0 is 0
    top = bits - 1
    pattern = pattern ^ ((pattern >> top) & ((1 << top) - 1))  # reverses the order of negative values
    return pattern + (1 << 31) if bits == 32 else pattern


def kth(
    keys: Callable[[], Iterable[Tensor]], k: int, bits: int, device: torch.device, is_collective: bool
) -> tuple[int, int]:
    """Finds the k-th smallest of many integers, with one pass for every 11 bits.

    Args:
        keys: Returns all integers, int64, in any number of tensors. It is called once per pass.
        k: 1 to the number of integers in all processes.
        bits: Number of bits. With 64 the integers are signed; otherwise they are not negative.
        device: Device of the counts.
        is_collective: Whether to search the integers of all processes.

    Returns:
        The k-th smallest integer, and how many integers equal to it are among the k smallest.
    """
    found, above = 0, bits
    for shift in range((bits - 1) // _DIGIT * _DIGIT, -1, -_DIGIT):
        width = above - shift
        flip = 1 << (width - 1) if bits == above == 64 else 0  # the sign bit: negative integers come first
        histogram = torch.zeros(1 << width, dtype=torch.int64, device=device)
        for some in keys():
            like = some if above == bits else some[(some >> above) == (found >> above)]
            histogram += torch.bincount(((like >> shift) & ((1 << width) - 1)) ^ flip, minlength=1 << width)
        if is_collective:
            distributed.all_reduce(histogram)
        upto = histogram.cumsum(0)
        chosen = int(torch.searchsorted(upto, k))
        k -= int(upto[chosen - 1]) if chosen else 0
        found |= (chosen ^ flip) << shift
        if bits == above == 64 and found >> 63:
            found -= 1 << 64
        above = shift
    return found, k
