"""Ticket files: what is in them."""

import json
import resource
import signal
import zlib
from math import log2
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from lightning_lottery import FolderError, Ticket, TicketError
from lightning_lottery.tickets import StoredWeights, open_file
from tests.helpers.fits import Net, same_bits
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
        ({"provenance": {"round": "3"}}, "round cannot be names in the provenance"),
        ({"provenance": {"seed": 5}}, "must contain strings, but got 'seed': 5"),
        ({"round": -1}, "cannot be written to .*its 'round' is '-1', but must be an integer of at least 0"),
        ({"branch": None}, "must contain strings, but got 'branch': None"),
        ({"provenance": {"name": "\ud800"}}, "cannot be written"),
    ],
)
def test_what_cannot_be_stored_is_refused(tmp_path, fields, message):
    with pytest.raises(TicketError, match=message):
        ticket_of(Net(), **fields).save(tmp_path / "ticket.safetensors")


def test_a_mask_of_double_complex_numbers_cannot_be_stored(tmp_path):
    ticket = Ticket({"w": torch.tensor([True])}, {"w": torch.ones(1, dtype=torch.complex128)})
    with pytest.raises(
        TicketError, match=r"'w' is a tensor of torch.complex128 on cpu, which a ticket file cannot store"
    ):
        ticket.save(tmp_path / "ticket.safetensors")


def test_a_file_that_is_replaced_while_it_is_opened_is_opened_again(tmp_path, monkeypatch):
    """Safetensors reads the header of the old file, and then the tensors of the new one."""
    path = tmp_path / "ticket.safetensors"
    old, new = ticket_of(nn.Linear(20, 10)), ticket_of(nn.Linear(200, 100))
    old.save(path)
    real, opened = open_file.safe_open, []

    def mixed(*args, **options):
        opened.append(path.stat().st_ino)
        if len(opened) == 1:
            new.save(path)
            raise SafetensorError("size 2175 is smaller than the required mapping size 19062")
        return real(*args, **options)

    monkeypatch.setattr(open_file, "safe_open", mixed)
    assert Ticket.load(path).fingerprint == new.fingerprint
    assert len(opened) == 2
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(TicketError, match="damaged"):
        Ticket.load(path)
    assert len(opened) == 3, "a damaged file is opened once"


def test_a_full_disk_leaves_the_old_file(tmp_path):
    path = tmp_path / "ticket.safetensors"
    old, new = ticket_of(Net(), 0.1), ticket_of(Net(), 0.9)
    old.save(path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, hard))
    try:
        with pytest.raises(FolderError, match=r"ticket.safetensors cannot be written: .*File too large"):
            new.save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert Ticket.load(path).fingerprint == old.fingerprint
    assert list(tmp_path.iterdir()) == [path]
