"""Files that are no tickets, damaged ones, and those that lie."""

import re
import struct
import subprocess
import sys
import tracemalloc

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from lightning_lottery import ConfigurationError, Ticket, TicketError
from lightning_lottery.masks import CodedMask
from tests.helpers.fits import Net
from tests.helpers.fuzz_tickets import Parsed, seal
from tests.helpers.scripts import ROOT
from tests.helpers.tickets import ticket_of


def test_a_missing_file_is_reported():
    with pytest.raises(FileNotFoundError, match=r"The ticket file nowhere.safetensors does not exist"):
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
        ({"shapes": '{"w": [1, 1]}'}, "'w': it has 2 values for 1 weights"),
        ({"shapes": '{"v": [2]}'}, "its tensors are not those in its header"),
        ({"shapes": '{"w": "x"}'}, "its 'shapes' of 'w' is 'x', but must be a list"),
        ({"shapes": '{"w": [-2, -2]}'}, "of 'w'.*integer of at least 0"),
        ({"shapes": '{"w": [true, 4]}'}, "of 'w'.*integer of at least 0"),
        ({"shapes": '{"w": [4611686018427387904, 0]}'}, "of 'w'.*integer of at least 0"),
        ({"shapes": '{"w": [4294967296, 4294967296]}'}, "of 'w'.*too large"),
        ({"shapes": "[1]"}, "its 'shapes' is .*must be a dict"),
        ({"shapes": "[" * 100_000}, "its 'shapes' is .*is not JSON"),
        ({"shapes": None}, "its masks are not those in its header: 'w'"),
        ({"kinds": '{"w": {"layout": "sparse_coo"}}'}, "its unusual tensors are not those in its header: 'w'"),
        ({"kinds": '{"v": {"layout": "dense"}}'}, "its 'kinds' of 'v' is .*must describe a tensor of sparse_coo"),
        (
            {"kinds": '{"v": {"layout": "sparse_coo", "shape": [-1]}}'},
            "its 'kinds' of 'v' is .*integer of at least 0",
        ),
        ({"crc32": "{}"}, "its checksums are not those"),
        ({"round": None}, "has no 'round'"),
        ({"round": "-1"}, "'round' is '-1', but must be an integer of at least 0"),
        ({"round": "٣"}, "integer of at least 0"),
        ({"branch": None}, "has no 'branch'"),
        ({"following": '["v"]'}, r"'following' has no masks of \['v'\]"),
        ({"following": "3"}, "'following' is '3', but must be a list"),
        ({"following": '"w'}, "'following' is .*is not JSON"),
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
    tracemalloc.start()
    try:
        with pytest.raises(TicketError, match=r"takes 500,000,000 bytes of memory.*max_bytes=500000000\)"):
            Ticket.load(path)
        assert tracemalloc.get_traced_memory()[1] < 10**6
    finally:
        tracemalloc.stop()
    assert Ticket.load(path, max_bytes=500_000_000).prunable == 100_000_000
    with pytest.raises(ConfigurationError, match="max_bytes=nan must be a number of at least 0"):
        Ticket.load(path, max_bytes=float("nan"))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_any_mask_of_a_density_of_a_thousandth_is_allowed(tmp_path, dtype):
    """Whole rows compress best, so that the file is smallest beside the memory that it takes."""
    mask = torch.zeros(10_000, 10_000, dtype=torch.bool)
    mask[::1000] = True
    Ticket({"w": mask}, {"w": torch.zeros(10_000, 10_000, dtype=dtype)}).save(tmp_path / "ticket.safetensors")
    assert Ticket.load(tmp_path / "ticket.safetensors").density == 0.001


def test_tensors_that_are_not_in_the_header_are_refused(lying, tmp_path):
    path = lying()
    file = Parsed.of(path.read_bytes())
    file.tensors["extra.w"] = {"dtype": "U8", "shape": [2], "data_offsets": [len(file.data), len(file.data) + 2]}
    file.data += b"12"
    path.write_bytes(file.sealed({name: file.part(name) for name in file.tensors}))
    with pytest.raises(TicketError, match=r"its tensors are not those in its header: 'extra.w'"):
        Ticket.load(path)


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F4"])
def test_masked_values_of_a_type_that_cannot_be_masked_are_refused(lying, dtype):
    """PyTorch has no arithmetic for them, and Ticket refuses them as well."""
    path = lying()
    file = Parsed.of(path.read_bytes())
    file.tensors["weight.w"] |= {"dtype": dtype, "shape": [2] if dtype == "F8_E4M3" else [4]}
    parts = {name: file.part(name) for name in file.tensors}
    parts["weight.w"] = parts["weight.w"][:2]
    path.write_bytes(file.sealed(parts))
    with pytest.raises(TicketError, match=r"is a damaged ticket file: 'w': "):
        Ticket.load(path)


def test_no_weight_is_expanded_before_all_of_the_file_is_checked(tmp_path, monkeypatch):
    path = tmp_path / "ticket.safetensors"
    ticket_of(Net()).save(path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # in the last tensor
    path.write_bytes(content)
    expanded = []
    monkeypatch.setattr(CodedMask, "expand", lambda *_: expanded.append(1))
    with pytest.raises(TicketError, match="checksum"):
        Ticket.load(path)
    assert expanded == []


def test_what_takes_more_memory_than_there_is_is_not_called_damaged(tmp_path, monkeypatch):
    path = tmp_path / "ticket.safetensors"
    ticket_of(Net()).save(path)
    for error in (MemoryError("no memory"), RuntimeError("alloc_cpu: not enough memory: you tried to allocate")):

        def fail(*_, error=error):
            raise error

        monkeypatch.setattr(CodedMask, "expand", fail)
        with pytest.raises(TicketError, match="does not fit into memory"):
            Ticket.load(path)


def test_a_path_that_cannot_be_read_or_written_is_named(tmp_path):
    with pytest.raises(TicketError, match=r"x+ cannot be read: File name too long"):
        Ticket.load("x" * 300)
    with pytest.raises(TicketError, match=r"is a folder. Write the path of a file, such as .*ticket.safetensors"):
        ticket_of(Net()).save(tmp_path)


def test_mutated_and_hostile_files_are_tickets_or_errors():
    """In a process of its own, so that what it takes in memory is what the files make it take."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.helpers.fuzz_tickets", "--files", "500"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = {name: int(count) for count, name in re.findall(r"^ *(\d+) (\w+: \w+)$", done.stdout, re.M)}
    assert sum(counts.values()) == 500
    assert min(counts["with_lying_header: valid"], counts["sealed_lie: valid"]) > 0
