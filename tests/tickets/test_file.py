"""Ticket files: what is in them, and what is refused."""

import json
import resource
import signal
import struct
import warnings
import zlib
from math import log2
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from lightning_lottery import FolderError, Ticket, TicketError
from lightning_lottery.tickets import StoredWeights
from tests.helpers.fits import Net, same_bits
from tests.helpers.fuzz_tickets import MEMORY, Parsed, fuzz, seal
from tests.helpers.tickets import ticket_of

DATA = Path(__file__).parent / "data"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("density", [0.0, 0.05, 0.3, 1.0])
def test_a_saved_ticket_comes_back_bit_for_bit(tmp_path, dtype, density):
    ticket = ticket_of(Net().to(dtype), density, round=3, branch="shuffle_mask", provenance={"seed": "5"})
    path = tmp_path / "new" / "ticket.safetensors"
    ticket.save(path)
    loaded = Ticket.load(path)
    assert same_bits(loaded.masks, ticket.masks)
    assert same_bits(loaded.weights, ticket.weights)
    assert same_bits(dict(StoredWeights(path)), ticket.weights)
    assert (loaded.round, loaded.branch, loaded.provenance) == (3, "shuffle_mask", {"seed": "5"})
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["ticket.safetensors"]


def test_others_can_read_the_file(tmp_path):
    """As the documentation describes it, without this package."""
    ticket = ticket_of(nn.Sequential(nn.Linear(40, 30), nn.Linear(30, 10)), 0.3)
    sparse = ticket_of(nn.Sequential(nn.Linear(40, 30), nn.Linear(30, 10)), 0.08)
    for each, coding in ((ticket, "bits"), (sparse, "gaps")):
        each.save(tmp_path / "ticket.safetensors")
        with safe_open(tmp_path / "ticket.safetensors", framework="np") as file:
            assert set(file.keys()) == {
                *(f"{kind}.{layer}.weight" for kind in ("weight", coding) for layer in (0, 1)),
                *("weight.0.bias", "weight.1.bias"),
            }
            metadata = file.metadata()
            shapes = json.loads(metadata["shapes"])
            for name, shape in shapes.items():
                content = zlib.decompress(file.get_tensor(f"{coding}.{name}").tobytes())
                if coding == "bits":
                    mask = np.unpackbits(np.frombuffer(content, np.uint8), count=np.prod(shape)).astype(bool)
                else:
                    gaps = np.frombuffer(content, np.uint8).astype(int)
                    mask = np.zeros(np.prod(shape), bool)
                    mask[(np.cumsum(gaps + (gaps < 255)) - 1)[gaps < 255]] = True
                weight = np.zeros(np.prod(shape), np.float32)
                weight[mask] = file.get_tensor(f"weight.{name}")
                assert np.array_equal(weight.reshape(shape), each.weights[name].numpy())
                assert np.array_equal(mask.reshape(shape), each.masks[name].numpy())
        assert (metadata["format"], metadata["version"]) == ("lightning-lottery ticket", "2")
        assert float(metadata["density"]) == each.density


@pytest.mark.parametrize("density", [0.5, 0.2, 0.05, 0.01])
def test_the_file_is_hardly_larger_than_values_and_entropy(tmp_path, density):
    layer = nn.Linear(2000, 1000, bias=False)
    ticket = ticket_of(layer, density)
    ticket.save(tmp_path / "ticket.safetensors")
    size, found = (tmp_path / "ticket.safetensors").stat().st_size, ticket.density
    entropy = -2_000_000 * (found * log2(found) + (1 - found) * log2(1 - found)) / 8
    assert 4 * ticket.kept + entropy < size < 1.02 * (4 * ticket.kept + entropy) + 1000
    if density == 0.05:
        save_file(layer.state_dict(), tmp_path / "dense.safetensors")
        assert size <= (tmp_path / "dense.safetensors").stat().st_size / 16


def test_files_of_version_1_load_and_become_version_2(tmp_path):
    """The file was written by the package of that time, from these random numbers."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    masks = {
        "a.weight": torch.rand(3, 7, generator=generator) < 0.4,
        "a.bias": torch.tensor([True, False, True]),
        "b.weight": torch.rand(4, 3, 2, 2, generator=generator) < 0.2,
        "c": torch.zeros(0, 5, dtype=torch.bool),
    }
    weights = {
        "a.weight": normal(3, 7),
        "a.bias": normal(3),
        "b.weight": normal(4, 3, 2, 2).bfloat16(),
        "c": normal(0, 5),
        "norm": normal(4).double(),
        "steps": torch.tensor(7),
        "flags": torch.tensor([True, False]),
    }
    first = Ticket.load(DATA / "version_1.safetensors")
    first.save(tmp_path / "again.safetensors")
    second = Ticket.load(tmp_path / "again.safetensors")
    for ticket in (first, second):
        assert ticket.fingerprint == "1894420863dd9386", "as that package said"
        assert same_bits(ticket.masks, masks)
        for name, weight in weights.items():
            mask = masks.get(name, torch.ones_like(weight, dtype=torch.bool))
            assert torch.equal(ticket.weights[name], torch.where(mask, weight, 0).to(weight.dtype))
        assert ticket.weights["adjacency"].layout == torch.sparse_coo
        assert torch.equal(ticket.weights["adjacency"].to_dense(), torch.eye(3))
        assert torch.equal(ticket.weights["rows"].to_dense(), torch.eye(2))
        assert ticket.weights["phase"].tolist() == [1 + 2j]
        assert (ticket.round, ticket.branch, list(ticket.following)) == (3, "shuffle_mask", ["a.bias"])
        assert ticket.provenance == {"criterion": "Magnitude()", "seed": "5"}
        assert ticket.density == 12 / 46
    with safe_open(tmp_path / "again.safetensors", framework="pt") as file:
        assert file.metadata()["version"] == "2"


def test_a_later_version_is_named(tmp_path):
    path = tmp_path / "ticket.safetensors"
    save_file({"weight.w": torch.ones(2)}, path, {"format": "lightning-lottery ticket", "version": "3"})
    with pytest.raises(TicketError, match=r"of version '3', but .* only 1, 2. Write pip install --upgrade"):
        Ticket.load(path)


def test_values_that_share_memory_are_saved(tmp_path):
    both = torch.randn(3)
    Ticket({}, {"first": both, "second": both, "part": both[1:]}).save(tmp_path / "ticket.safetensors")
    loaded = Ticket.load(tmp_path / "ticket.safetensors")
    assert torch.equal(loaded.weights["second"], both)
    assert torch.equal(loaded.weights["part"], both[1:])


def test_a_loaded_ticket_does_not_depend_on_the_file(tmp_path):
    path = tmp_path / "ticket.safetensors"
    ticket = ticket_of(Net())
    ticket.save(path)
    loaded = Ticket.load(path)
    path.write_bytes(b"\0" * path.stat().st_size)  # in place, where a mapping would see it
    assert same_bits(loaded.weights, ticket.weights)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"provenance": {"round": "3"}}, "cannot have the names round"),
        ({"provenance": {"seed": 5}}, "strings only, but got 'seed': 5"),
        ({"round": -1}, "cannot be of round -1"),
        ({"branch": None}, "and branch None"),
    ],
)
def test_what_cannot_be_stored_is_refused(tmp_path, fields, message):
    with pytest.raises(TicketError, match=message):
        ticket_of(Net(), **fields).save(tmp_path / "ticket.safetensors")


def test_a_mask_of_double_complex_numbers_cannot_be_stored(tmp_path):
    ticket = Ticket({"w": torch.tensor([True])}, {"w": torch.ones(1, dtype=torch.complex128)})
    with pytest.raises(TicketError, match=r"'w' is a masked tensor of torch.complex128"):
        ticket.save(tmp_path / "ticket.safetensors")


def test_a_missing_file_is_reported():
    with pytest.raises(FileNotFoundError, match="no ticket file nowhere"):
        Ticket.load("nowhere.safetensors")


@pytest.mark.parametrize("length", [0, 7, 8, 60, -1])
def test_a_truncated_file_is_refused(tmp_path, length):
    path = tmp_path / "ticket.safetensors"
    ticket_of(Net()).save(path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(TicketError, match="not a ticket file, or it is damaged"):
        Ticket.load(path)


def test_a_folder_and_an_empty_file_are_not_tickets(tmp_path):
    ticket_of(Net()).save(tmp_path / "tickets" / "round_01.safetensors")
    with pytest.raises(
        TicketError, match=r"is a folder, not a ticket file. .* for example .*round_01.safetensors"
    ):
        Ticket.load(tmp_path)
    (tmp_path / "empty.safetensors").touch()
    with pytest.raises(TicketError, match="it is empty"):
        Ticket.load(tmp_path / "empty.safetensors")


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("bytes") / "ticket.safetensors"
    path.write_bytes(content)
    with pytest.raises(TicketError):
        Ticket.load(path)


def test_a_hostile_header_is_refused(tmp_path):
    path = tmp_path / "ticket.safetensors"
    path.write_bytes(struct.pack("<Q", 2**60) + b"{}")
    with pytest.raises(TicketError):
        Ticket.load(path)


def test_other_safetensors_files_are_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.ones(2)}, path)
    with pytest.raises(TicketError, match=r"has format 'none' .* write Ticket.from_state_dict"):
        Ticket.load(path)


def test_every_flipped_bit_is_noticed(tmp_path):
    """A byte of each tensor, and of each value in the header."""
    path = tmp_path / "ticket.safetensors"
    ticket_of(Net(), 0.05, round=3, provenance={"seed": "5"}).save(path)
    content = path.read_bytes()
    start = len(content) - len(Parsed.of(content).data)
    places = [start + begin for begin, _ in (t["data_offsets"] for t in Parsed.of(content).tensors.values())]
    places += [content.index(word) + len(word) for word in (b'"seed":"', b'"round":"', b'"density":"0.0')]
    for place in places:
        changed = bytearray(content)
        changed[place] ^= 1
        path.write_bytes(changed)
        with pytest.raises(TicketError, match=r"is a damaged ticket file: .*checksum.*Copy or save it again"):
            Ticket.load(path)


@pytest.fixture
def lying(tmp_path):
    """Writes a small ticket file with another header, whose checksum is right."""

    def write(**changed):
        path = tmp_path / "ticket.safetensors"
        Ticket({"w": torch.tensor([[True, True], [False, False]])}, {"w": torch.ones(2, 2)}, 1).save(path)
        file = Parsed.of(path.read_bytes())
        file.metadata |= {name: text for name, text in changed.items() if text is not None}
        file.metadata = {name: text for name, text in file.metadata.items() if changed.get(name, "") is not None}
        seal(file.metadata)
        path.write_bytes(file.written())
        return path

    return write


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"shapes": '{"w": [9, 9]}'}, r"'w': its mask has 1 bytes; a mask of \(9, 9\) has 11"),
        ({"shapes": '{"w": [1, 1]}'}, "'w': there are 2 values for 1 weights"),
        ({"shapes": '{"v": [2]}'}, "its masks are not those in its header: 'v', 'w'"),
        ({"shapes": '{"w": "x"}'}, "its 'shapes' of 'w' is 'x', which is not a list"),
        ({"shapes": '{"w": [-2, -2]}'}, "of 'w'.*not a count"),
        ({"shapes": '{"w": [true, 4]}'}, "of 'w'.*not a count"),
        ({"shapes": '{"w": [4611686018427387904, 0]}'}, "of 'w'.*not a count"),
        ({"shapes": '{"w": [4294967296, 4294967296]}'}, "of 'w'.*too large"),
        ({"shapes": "[1]"}, "its 'shapes' is .*not a dict"),
        ({"shapes": "[" * 100_000}, "its 'shapes' is .*cannot be read"),
        ({"shapes": None}, "its masks are not those"),
        ({"kinds": '{"w": {"layout": "sparse_coo"}}'}, "its unusual tensors are not those"),
        ({"crc32": "{}"}, "its checksums are not those"),
        ({"round": None}, "has no 'round'"),
        ({"round": "-1"}, "'round' is '-1', which is not a count"),
        ({"round": "٣"}, "not a count"),
        ({"branch": None}, "has no 'branch'"),
        ({"following": '["v"]'}, r"'following' has no masks of \['v'\]"),
        ({"following": "3"}, "'following' is '3', which is not a list"),
        ({"following": '"w'}, "'following' is .*cannot be read"),
        ({"following": '[["w"]]'}, "'following' has no masks"),
    ],
)
def test_a_header_that_lies_is_refused_naming_the_field(lying, changed, message):
    with pytest.raises(TicketError, match=message):
        Ticket.load(lying(**changed))


def test_what_would_expand_too_far_is_refused_before_it_is_allocated(tmp_path):
    path = tmp_path / "ticket.safetensors"
    masks = {"w": torch.zeros(100_000_000, dtype=torch.bool)}
    Ticket(masks, {"w": torch.zeros(100_000_000)}).save(path)
    assert path.stat().st_size < 20_000
    with pytest.raises(TicketError, match=r"takes 500,000,000 bytes of memory.*max_bytes=500000000\)"):
        Ticket.load(path)
    assert Ticket.load(path, max_bytes=500_000_000).prunable == 100_000_000


def test_mutated_and_hostile_files_are_tickets_or_errors(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch, about sparse tensors
        outcome = fuzz(500, 0, tmp_path)
    assert outcome.failures == []
    assert outcome.grown <= MEMORY
    assert sum(outcome.counts.values()) == 500
    assert min(outcome.counts[f"{kind}: valid"] for kind in ("with_lying_header", "sealed_lie")) > 0


def test_a_full_disk_leaves_the_old_file(tmp_path):
    path = tmp_path / "ticket.safetensors"
    old, new = ticket_of(Net(), 0.1), ticket_of(Net(), 0.9)
    old.save(path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, hard))
    try:
        with pytest.raises(FolderError, match=r"ticket.safetensors cannot be written: File too large"):
            new.save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert Ticket.load(path).fingerprint == old.fingerprint
    assert list(tmp_path.iterdir()) == [path]
