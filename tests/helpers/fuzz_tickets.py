"""Loads mutated, truncated and hostile ticket files: each is a valid ticket or a TicketError, in bounded memory.

python -m tests.helpers.fuzz_tickets --files 10000
"""

import argparse
import functools
import json
import pickle
import random
import struct
import sys
import tempfile
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from lightning_lottery import Ticket, TicketError
from lightning_lottery.tickets.tensors import bytes_of
from tests.helpers.tickets import ticket_of

# Bytes by which the memory of the process may grow: twice what Ticket.load allows for files as small as these.
MEMORY = 2 * 2**28

HOSTILE: list[Any] = [
    *(0, 1, -1, 7, 2**31, 2**62, 2**63, 10**30, 1e999, 0.5, True, None, "", "x", "\x1b[2J", "9" * 5000),
    *([], [0], [-1], [2**40, 2**40], [0, 2**63], [1] * 40, {}, {"w": 3}, {"layout": "sparse_coo"}),
    *('{"w": [4, 6', "[" * 100_000, "NaN", '{"w": [1e3, 2]}', '{"layout": {"layout": {}}}', "٣", "1_0", " 1"),
]
DTYPES = ["U8", "F32", "BF16", "F64", "I64", "BOOL", "F8_E4M3", "C64", "F4", "X9"]


@dataclass
class Parsed:
    """A safetensors file as plain values: header by name, metadata, and the bytes of all tensors."""

    tensors: dict[str, dict[str, Any]]
    metadata: dict[str, str]
    data: bytes

    @classmethod
    def of(cls, content: bytes) -> "Parsed":
        size = struct.unpack("<Q", content[:8])[0]
        header = json.loads(content[8 : 8 + size])
        return cls(header, header.pop("__metadata__"), content[8 + size :])

    def part(self, name: str) -> bytes:
        begin, end = self.tensors[name]["data_offsets"]
        return self.data[begin:end]

    def written(self) -> bytes:
        """As they are, whatever they are."""
        header = json.dumps({"__metadata__": self.metadata, **self.tensors}).encode()
        return struct.pack("<Q", len(header)) + header + self.data

    def sealed(self, parts: dict[str, bytes]) -> bytes:
        """With these bytes of the tensors, and checksums that are right, as an attacker would write them."""
        if "crc32" in self.metadata:
            self.metadata["crc32"] = json.dumps({name: zlib.crc32(part) for name, part in parts.items()})
            seal(self.metadata)
        at = 0
        for name, part in parts.items():
            self.tensors[name]["data_offsets"] = [at, at := at + len(part)]
        self.data = b"".join(parts.values())
        return self.written()


def seal(metadata: dict[str, str]) -> None:
    """Makes the checksum of the header right again."""
    others = sorted((name, value) for name, value in metadata.items() if name != "header_crc32")
    metadata["header_crc32"] = str(zlib.crc32(json.dumps(others).encode()))


def seeds(folder: Path) -> list[bytes]:
    """Valid files: dense and sparse masks, unusual tensors, followers, and one of version 1."""
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(40, 30), nn.BatchNorm1d(30), nn.Linear(30, 10)).bfloat16()
    first = ticket_of(layer, 0.05, round=3, provenance={"seed": "5", "criterion": "Magnitude()"})
    masks = {"w": torch.rand(4, 6) < 0.5, "b": torch.rand(4) < 0.5}
    unusual = {
        "rows": torch.eye(3).to_sparse_csr(),
        "edges": torch.eye(3).to_sparse(),
        "phase": torch.ones(2, dtype=torch.complex128),
        "steps": torch.tensor(3),
    }
    second = Ticket(masks, {"w": torch.randn(4, 6), "b": torch.randn(4), **unusual}, following=["b"])
    third = Ticket({"w": torch.rand(300, 200) < 0.02}, {"w": torch.randn(300, 200)}, branch="random_mask")
    contents = [(Path(__file__).parents[1] / "tickets" / "data" / "version_1.safetensors").read_bytes()]
    for ticket in (first, second, third):
        ticket.save(folder / "seed.safetensors")
        contents.append((folder / "seed.safetensors").read_bytes())
    return contents


def flipped(content: bytes, luck: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(luck.choice([1, 1, 1, 2, 8, 64])):
        changed[luck.randrange(len(changed))] ^= 1 << luck.randrange(8)
    return bytes(changed)


def truncated(content: bytes, luck: random.Random) -> bytes:
    return content[: luck.choice([luck.randrange(len(content)), luck.randrange(16), len(content) - 1])]


def spliced(content: bytes, luck: random.Random) -> bytes:
    begin, end = sorted(luck.randrange(len(content)) for _ in range(2))
    middle = luck.choice([b"", luck.randbytes(end - begin), content[begin:end] * 2, luck.randbytes(5)])
    return content[:begin] + middle + content[end:]


def foreign(content: bytes, luck: random.Random) -> bytes:
    """Files of other kinds."""
    return luck.choice(
        [
            lambda: luck.randbytes(luck.randrange(300)),
            lambda: pickle.dumps({"masks": [1, 2, 3]}),
            lambda: struct.pack("<Q", luck.choice([0, 2, 2**20, 2**60, 2**64 - 1])) + b"{}",
            lambda: save({"weight": torch.ones(3)}),
            lambda: save({"weight": torch.ones(3)}, {"format": "lightning-lottery ticket"}),
            lambda: zlib.compress(content),
        ]
    )()


def with_lying_header(content: bytes, luck: random.Random) -> bytes:
    """Any field of the header is another value; checksums of the header may be right."""
    file = Parsed.of(content)
    name = luck.choice(list(file.tensors))
    described, key = file.tensors[name], luck.choice([*file.metadata, "kinds", "following", "extra"])
    change: Callable[[], object] = luck.choice(
        [
            lambda: file.metadata.update({key: _text(luck)}),
            lambda: file.metadata.pop(key, None),
            lambda: file.metadata.update({key: _mutated_json(file.metadata.get(key, "{}"), luck)}),
            lambda: described.update(shape=luck.choice(HOSTILE)),
            lambda: described.update(dtype=luck.choice(DTYPES)),
            lambda: described.update(data_offsets=[luck.randrange(99), luck.choice([0, 50, 2**62, -1])]),
            lambda: file.tensors.update({luck.choice(["mask.w", "bits.w", "part.x.w", "x"]): described}),
            lambda: file.tensors.pop(name),
        ]
    )
    change()
    if (
        luck.random() < 0.7
        and "crc32" in file.metadata
        and all(isinstance(v, str) for v in file.metadata.values())
    ):
        seal(file.metadata)
    return file.written()


def _text(luck: random.Random) -> str:
    value = luck.choice(HOSTILE)
    return value if isinstance(value, str) else json.dumps(value)


def _mutated_json(text: str, luck: random.Random) -> str:
    """The same JSON with one value replaced, if it is an object with values."""
    try:
        values = json.loads(text)
    except ValueError:
        return _text(luck)
    if not isinstance(values, dict) or not values:
        return _text(luck)
    key = luck.choice(list(values))
    inner = values[key]
    if isinstance(inner, list) and inner and luck.random() < 0.5:
        inner[luck.randrange(len(inner))] = luck.choice(HOSTILE)
    elif isinstance(inner, dict) and inner:
        inner[luck.choice(list(inner))] = luck.choice(HOSTILE)
    else:
        values[key] = luck.choice(HOSTILE)
    return json.dumps(values)


@functools.cache
def zeros(count: int) -> bytes:
    """So many zeros, compressed, without having them in memory."""
    stream = zlib.compressobj(1)
    return b"".join(stream.compress(bytes(2**20)) for _ in range(count // 2**20)) + stream.flush()


def sealed_lie(content: bytes, luck: random.Random) -> bytes:
    """Other tensors and shapes, with checksums that are right."""
    file = Parsed.of(content)
    parts = {name: file.part(name) for name in sorted(file.tensors, key=lambda n: file.tensors[n]["data_offsets"])}
    shapes = json.loads(file.metadata["shapes"])
    masked = [name for name in file.tensors if name.partition(".")[0] in ("mask", "bits", "gaps")]
    name = luck.choice(masked if luck.random() < 0.7 else list(parts))
    layer = name.partition(".")[2]
    bomb = zeros(2**30) if luck.random() < 0.1 else zlib.compress(luck.choice([b"\0", b"\xff"]) * 10**6)
    parts[name] = luck.choice(
        [bomb, flipped(parts[name], luck) if parts[name] else b"", luck.randbytes(20), parts[name][:-1]]
    )
    if layer in shapes and luck.random() < 0.5:
        shapes[layer] = luck.choice([[10**6, 800], [2**31], [2**61], [0], [1, 1], [10**5, 10**4], []])
        file.metadata["shapes"] = json.dumps(shapes)
    if file.tensors[name]["dtype"] == "U8":
        file.tensors[name]["shape"] = [len(parts[name])]
    else:
        size = len(file.part(name))
        parts[name] = parts[name][:size].ljust(size, b"\0")
    return file.sealed(parts)


MUTATIONS = [flipped, truncated, spliced, foreign, with_lying_header, sealed_lie]
# These leave checksums alone, so that a changed file of version 2 is refused, unless the change is without effect.
BLIND = (flipped, truncated, spliced)


@dataclass
class Outcome:
    """What became of the files."""

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest: float = 0.0
    grown: int = 0


def fuzz(files: int, seed: int, folder: Path) -> Outcome:
    """Loads mutated files.

    Args:
        files: How many.
        seed: Of the mutations.
        folder: For the files. Those that fail stay there.
    """
    luck, outcome, path = random.Random(seed), Outcome(), folder / "fuzzed.safetensors"
    valid = seeds(folder)
    expected = []
    for content in valid:
        path.write_bytes(content)
        expected.append(identity(Ticket.load(path)))
    zeros(2**30)
    before = peak()
    for number in range(files):
        mutate, source = luck.choice(MUTATIONS), luck.randrange(len(valid))
        content = mutate(valid[source], luck)
        path.write_bytes(content)
        started = time.perf_counter()
        fault = load(path, expected[source] if mutate in BLIND and source > 0 else None, outcome.counts, mutate)
        outcome.slowest = max(outcome.slowest, time.perf_counter() - started)
        if fault is not None:
            (folder / f"failed_{number}.safetensors").write_bytes(content)
            outcome.failures.append(f"{mutate.__name__}, failed_{number}.safetensors: {fault}")
    outcome.grown = peak() - before
    return outcome


def load(path: Path, expected: object, counts: Counter[str], mutate: Callable[..., bytes]) -> str | None:
    """Loads one file. Returns what is wrong."""
    try:
        ticket = Ticket.load(path)
        check(ticket, path.with_name("again.safetensors"))
    except TicketError as error:
        counts[f"{mutate.__name__}: refused"] += 1
        return None if str(path) in str(error) else f"the error does not name the file: {error}"
    except KeyboardInterrupt:
        raise
    except BaseException:  # also a panic of safetensors
        return traceback.format_exc()
    counts[f"{mutate.__name__}: valid"] += 1
    if expected is not None and identity(ticket) != expected:
        return "a damaged file was taken for another ticket"
    return None


def identity(ticket: Ticket) -> tuple[object, ...]:
    return ticket.fingerprint, ticket.id, list(ticket.following), ticket.provenance


def check(ticket: Ticket, path: Path) -> None:
    """Checks that a ticket is valid: it can be used, and saved again."""
    assert 0 <= ticket.density <= 1
    assert all(0 <= density <= 1 for density in ticket.layer_densities().values())
    if ticket.prunable > 10**6:
        return  # the checks would take more memory than loading
    for name, mask in ticket.masks.items():
        assert mask.dtype == torch.bool
        assert mask.shape == ticket.weights[name].shape
        pruned = ticket.weights[name][~mask]
        assert not any(bytes_of(pruned))
    assert repr(ticket).startswith("Ticket(")
    ticket.save(path)
    assert identity(Ticket.load(path)) == identity(ticket)


def peak() -> int:
    """The most virtual memory that this process has had, in bytes; 0 where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return 1024 * int(next(line for line in lines if line.startswith("VmPeak")).split()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fuzz_tickets_"))
    outcome = fuzz(arguments.files, arguments.seed, folder)
    for name, count in sorted(outcome.counts.items()):
        print(f"{count:6} {name}")
    print(f"memory grew by {outcome.grown / 2**20:.0f} MiB; the slowest file took {outcome.slowest:.2f} s")
    for failure in outcome.failures:
        print(failure)
    if outcome.failures or outcome.grown > MEMORY:
        sys.exit(f"{len(outcome.failures)} of {arguments.files} files failed; they are in {folder}")


if __name__ == "__main__":
    main()
