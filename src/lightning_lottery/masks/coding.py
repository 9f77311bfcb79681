"""Masks as few bytes, for files: as bits or as gaps between survivors, and then compressed.

A mask of n weights, of which a fraction d survives at random positions, takes at least n·H(d) bits, where H is the
binary entropy. In large layers, gaps come within 5 % of that between 1 % and 12.5 % (11 % at 0.1 %), and bits come
within 5 % between 12.5 % and 90 %.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_lottery.masks.packing import pack, unpack

# "mask": bits as they are, in files of version 1. "bits": the same, compressed. "gaps": the compressed numbers of
# pruned weights before each survivor, one byte each; a byte of 255 adds 255 to the next one.
Coding = Literal["mask", "bits", "gaps"]

_ESCAPE = 255
_SPARSE = 1 / 8  # below this density, gaps take fewer bytes than bits
# With this share of bytes that are equal to the one before, it pays to compress runs instead of single bytes.
_MANY_RUNS = 0.72
# With less, bytes cannot be compressed: random bits of a density between 38 % and 62 %.
_NO_RUNS = 0.006
_ONES = np.array([bin(byte).count("1") for byte in range(256)], np.uint8)

Bytes = NDArray[np.uint8]
Positions = NDArray[np.int64]
Values = NDArray[Any]


@dataclass(frozen=True, eq=False)
class CodedMask:
    """A mask in a form that takes little memory.

    Attributes:
        shape: The shape of the mask, of n entries in all.
        kept: The number of survivors.
        bits: The mask as bits, ``uint8`` of shape (ceil(n / 8),), if at least an eighth survives.
        positions: Otherwise the positions of the survivors in the flat mask, rising.
    """

    shape: tuple[int, ...]
    kept: int
    bits: Bytes | None
    positions: Positions | None

    @classmethod
    def of(cls, mask: Tensor) -> "CodedMask":
        """Makes one from a boolean mask of any shape, on any device."""
        flat = mask.detach().cpu().contiguous().view(-1).numpy()
        kept = int(np.count_nonzero(flat))
        if kept < _SPARSE * flat.size:
            return cls(tuple(mask.shape), kept, None, np.flatnonzero(flat))
        return cls(tuple(mask.shape), kept, pack(mask).numpy(), None)

    def encode(self) -> tuple[Coding, Tensor]:
        """Codes the mask as few bytes.

        Returns:
            How the mask is coded, and the bytes: ``uint8``, one dimension.
        """
        if self.bits is not None:
            return "bits", _deflated(self.bits)
        assert self.positions is not None
        return "gaps", _deflated(_gaps(self.positions))

    @classmethod
    def decode(cls, coding: Coding, stored: Tensor, shape: Sequence[int], kept: int) -> "CodedMask":
        """Reads what :meth:`encode` has written, and checks it, since it may come from anyone.

        It takes at most n / 8 + 32 · kept bytes of memory, whatever is stored.

        Args:
            coding: How the mask is coded.
            stored: ``uint8``, one dimension.
            shape: The shape of the mask.
            kept: The number of survivors.

        Raises:
            ValueError: The content is not a mask of this shape with so many survivors.
        """
        if stored.dtype != torch.uint8 or stored.dim() != 1:
            raise ValueError(f"a mask cannot be stored as {stored.dtype} of shape {tuple(stored.shape)}")
        shape, size = tuple(shape), prod(shape)
        if kept > size:
            raise ValueError(f"it has {kept} values for {size} weights")
        if coding == "gaps":
            return cls(shape, kept, None, _positions(_inflated(stored, kept + size // _ESCAPE), size, kept))
        bits = stored.numpy() if coding == "mask" else _inflated(stored, (size + 7) // 8)
        if bits.size != (size + 7) // 8:
            raise ValueError(f"its mask has {bits.size} bytes; a mask of {shape} has {(size + 7) // 8}")
        if size % 8 and bits[-1] & (0xFF >> size % 8):
            raise ValueError(f"its mask has more bits than a mask of {shape}")
        if (counted := sum(int(_ONES[bits[part]].sum()) for part in _parts(bits.size))) != kept:
            raise ValueError(f"it has {kept} values for {counted} survivors")
        return cls(shape, kept, bits, None)

    def gather(self, weight: Values) -> Values:
        """The values of the survivors, in order of position.

        Args:
            weight: All values, flat: shape (n,).

        Returns:
            Shape (kept,). It may share memory with the values.
        """
        if self.kept == weight.size:
            return weight
        if self.positions is not None:
            return weight[self.positions]
        flat, values, at = self._flat(), np.empty(self.kept, weight.dtype), 0
        for part in _parts(flat.size):
            there = np.flatnonzero(flat[part])
            np.take(weight[part], there, out=values[at : at + there.size])
            at += there.size
        return values

    def expand(self, values: Values) -> tuple[NDArray[np.bool_], Values]:
        """The mask and its weight, both flat: shape (n,).

        Args:
            values: The values of the survivors, in order of position: shape (kept,).

        Returns:
            The mask, and the weight with zeros where it is pruned. Neither shares memory with the values.
        """
        flat = self._flat()
        if self.kept == flat.size:
            return flat, values.copy()
        weight = np.zeros(flat.size, values.dtype)  # costs nothing until it is written
        if self.positions is not None:
            weight[self.positions] = values
            return flat, weight
        at = 0
        for part in _parts(flat.size):
            there = np.flatnonzero(flat[part])
            weight[part][there] = values[at : at + there.size]
            at += there.size
        return flat, weight

    def _flat(self) -> NDArray[np.bool_]:
        if self.bits is not None:
            return unpack(torch.from_numpy(self.bits), (prod(self.shape),)).numpy()
        assert self.positions is not None
        flat = np.zeros(prod(self.shape), np.bool_)
        flat[self.positions] = True
        return flat


def _gaps(positions: Positions) -> Bytes:
    gaps = np.diff(positions, prepend=-1) - 1
    large = np.flatnonzero(gaps >= _ESCAPE)
    escapes, gaps[large] = np.divmod(gaps[large], _ESCAPE)
    return np.insert(gaps.astype(np.uint8), np.repeat(large, escapes), _ESCAPE)


def _positions(gaps: Bytes, size: int, kept: int) -> Positions:
    is_survivor = gaps != _ESCAPE
    ends = np.cumsum(gaps + is_survivor.astype(np.int64))  # cannot overflow: a byte adds at most 255
    positions: Positions = ends[is_survivor] - 1
    if positions.size != kept:
        raise ValueError(f"it has {kept} values for {positions.size} survivors")
    if ends.size and (not is_survivor[-1] or ends[-1] > size):
        raise ValueError(f"its mask goes beyond its {size} weights")
    return positions


def _parts(size: int) -> Iterator[slice]:
    """Parts of an array of this size: the positions of all survivors would take eight bytes each."""
    return (slice(at, at + 2**20) for at in range(0, size, 2**20))


def _deflated(content: Bytes) -> Tensor:
    """A zlib stream (RFC 1950)."""
    repeated = np.count_nonzero(content[1:] == content[:-1])
    # All are at least ten times as fast as the default strategy, which finds nothing else to gain in random masks.
    strategy = zlib.Z_RLE if repeated >= _MANY_RUNS * content.size else zlib.Z_HUFFMAN_ONLY
    level = 0 if repeated < _NO_RUNS * content.size else 6
    stream = zlib.compressobj(level, memLevel=9, strategy=strategy)
    return torch.from_numpy(np.frombuffer(bytearray(stream.compress(content.data) + stream.flush()), np.uint8))


def _inflated(stored: Tensor, most: int) -> Bytes:
    """Undoes :func:`_deflated`, but expands at most one byte more than expected."""
    stream = zlib.decompressobj()
    try:
        content = bytearray(stream.decompress(stored.numpy().data, most + 1))
    except zlib.error as error:
        raise ValueError(f"its mask cannot be decompressed: {error}") from error
    if len(content) > most or not stream.eof or stream.unused_data:
        raise ValueError(f"its mask does not end after at most {most} bytes, as its shape says")
    return np.frombuffer(content, np.uint8)
