"""Iterates over the entries of many tensors in chunks that fit into a CPU cache."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_lottery.masks import sharding


@dataclass(frozen=True)
class _Piece:
    """Entries ``begin`` to ``end`` of one tensor, stored from position ``at`` of their chunk on."""

    tensor: int
    begin: int
    end: int
    at: int

    @property
    def there(self) -> slice:
        return slice(self.begin, self.end)

    @property
    def here(self) -> slice:
        return slice(self.at, self.at + self.end - self.begin)


@dataclass
class Chunk:
    """Consecutive entries of all tensors, in memory that the next chunk reuses.

    Attributes:
        values: Scores, or their absolute values, shape (n,).
        alive: Which of them belong to survivors, boolean, shape (n,); ``None`` means all.
        kept: The new masks, boolean, shape (n,). The caller fills them and calls :meth:`Chunks.store`.
        marks: Scratch memory, boolean; n entries padded with ``False`` to a multiple of 8.
        numbers: Scratch memory, like ``values``.
        pieces: The tensors and positions that the entries come from.
    """

    values: Tensor
    alive: Tensor | None
    kept: Tensor
    marks: Tensor
    numbers: Tensor
    pieces: list[_Piece]


class Chunks:
    """The scores and masks of many tensors. Can be iterated several times.

    Args:
        scores: Floating-point tensors on any device. Of sharded tensors, only this process's part is visited.
        masks: The survivors, boolean, of the same shapes; ``None`` means all.
        out: Boolean tensors of the same shapes, contiguous, for the new masks.
        magnitude: Whether to use the absolute values of the scores.
        size: Entries per chunk.
        which: Indices of the tensors to visit; all by default.
    """

    def __init__(
        self,
        scores: Sequence[Tensor],
        masks: Sequence[Tensor] | None,
        out: Sequence[Tensor],
        magnitude: bool,
        size: int,
        which: Sequence[int] | None = None,
    ) -> None:
        self._scores, self._masks, self._out, self._magnitude = scores, masks, out, magnitude
        self.device = scores[0].device
        self.dtype = torch.float64 if any(score.dtype == torch.float64 for score in scores) else torch.float32
        self._which = range(len(scores)) if which is None else which
        self._sizes = [sharding.local(scores[index]).numel() for index in self._which]
        self._starts = [0, *itertools.accumulate(score.numel() for score in scores)]
        self.total = sum(self._sizes)
        self._room = max(8, min(size, self.total) // 8 * 8)

    def __iter__(self) -> Iterator[Chunk]:
        scratch = [torch.empty(self._room, dtype=self.dtype, device=self.device) for _ in range(2)]
        marks = [torch.empty(self._room, dtype=torch.bool, device=self.device) for _ in range(3)]
        pieces: list[_Piece] = []
        filled = 0
        for index in self._which:
            score, mask = self.score(index), self.mask(index)
            begin = 0
            while begin < score.numel():
                piece = _Piece(index, begin, min(score.numel(), begin + self._room - filled), filled)
                pieces.append(piece)
                self._load(score[piece.there], scratch[0][piece.here])
                if mask is not None and not self._is_direct(piece):
                    marks[0][piece.here].copy_(mask[piece.there])
                filled, begin = piece.here.stop, piece.end
                if filled == self._room:
                    yield self._chunk(scratch, marks, pieces, filled, mask)
                    pieces, filled = [], 0
        if filled:
            yield self._chunk(scratch, marks, pieces, filled, None)

    def score(self, index: int) -> Tensor:
        """All scores of a tensor in this process, shape (n,)."""
        return sharding.local(self._scores[index].detach()).reshape(-1)

    def mask(self, index: int) -> Tensor | None:
        """The mask of a tensor in this process, shape (n,)."""
        return None if self._masks is None else sharding.local(self._masks[index]).reshape(-1)

    def _load(self, score: Tensor, values: Tensor) -> None:
        if self._magnitude and score.dtype == values.dtype and score.device == values.device:
            torch.abs(score, out=values)  # without an intermediate copy
            return
        values.copy_(score)
        if self._magnitude:
            values.abs_()

    def _chunk(
        self, scratch: list[Tensor], marks: list[Tensor], pieces: list[_Piece], size: int, mask: Tensor | None
    ) -> Chunk:
        alive = None if self._masks is None else marks[0][:size]
        kept = marks[1][:size]
        if self._is_direct(pieces[0]):
            kept = self._flat_out(pieces[0])
            if mask is not None:
                alive = mask[pieces[0].there]
        marks[2][size:] = False
        return Chunk(scratch[0][:size], alive, kept, marks[2][: size + -size % 8], scratch[1][:size], pieces)

    def _is_direct(self, piece: _Piece) -> bool:
        """Whether the piece is a whole chunk, so that its masks can be read and written in place."""
        return piece.end - piece.begin == self._room and self._scores[piece.tensor].device == self.device

    def _flat_out(self, piece: _Piece) -> Tensor:
        return sharding.local(self._out[piece.tensor]).view(-1)[piece.there]

    def store(self, chunk: Chunk) -> None:
        """Writes the part of the new masks that a chunk covers."""
        if not self._is_direct(chunk.pieces[0]):
            for piece in chunk.pieces:
                self._flat_out(piece).copy_(chunk.kept[piece.here])

    def keep(self, pieces: list[_Piece], places: Tensor) -> None:
        """Sets the new masks to ``True`` at some places of a chunk that was already stored."""
        if len(pieces) == 1 and self._scores[pieces[0].tensor].device == self.device:
            self._flat_out(pieces[0])[places] = True
            return
        marks = torch.zeros(pieces[-1].here.stop, dtype=torch.bool, device=self.device)
        marks[places] = True
        for piece in pieces:
            out = self._flat_out(piece)
            out.logical_or_(marks[piece.here].to(out.device))

    def positions(self, chunk: Chunk, places: Tensor) -> Tensor:
        """Converts places in a chunk to positions among the entries of all tensors and processes."""
        found = []
        for piece in chunk.pieces:
            within = places[(places >= piece.at) & (places < piece.here.stop)] - piece.at + piece.begin
            found.append(self._starts[piece.tensor] + sharding.positions(self._scores[piece.tensor], within))
        return torch.cat(found)

    def sample(self, number: int, run: int) -> Tensor:
        """Draws values of survivors, with a private random generator.

        Args:
            number: Approximate number of draws, survivors or not.
            run: Number of consecutive entries that are drawn together.
        """
        generator = torch.Generator().manual_seed(self.total)
        places = torch.randint(self.total, (number // run + 1,), generator=generator).sort().values
        ends = torch.tensor(self._sizes).cumsum(0)
        owned = torch.searchsorted(ends, places, right=True).bincount(minlength=len(self._which)).tolist()
        drawn = []
        for owner, group in enumerate(torch.split(places, owned)):
            if not owned[owner]:
                continue
            score, mask = self.score(self._which[owner]), self.mask(self._which[owner])
            begins = group - (int(ends[owner]) - score.numel())
            begins = begins.clamp(max=max(score.numel() - run, 0)).to(score.device)
            steps = torch.arange(min(run, score.numel()), device=score.device)
            chosen = (begins.unsqueeze(1) + steps).flatten()
            values = score[chosen] if mask is None else score[chosen][mask[chosen]]
            drawn.append(values.to(self.device, self.dtype))
        sample = torch.cat(drawn)
        return sample.abs_() if self._magnitude else sample
