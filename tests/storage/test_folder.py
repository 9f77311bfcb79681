import json
import math
import shutil
from dataclasses import dataclass

import fsspec
import pytest
import torch

from lightning_lottery import ConfigurationError, LotteryError, Records, RoundRecord, Ticket
from lightning_lottery.storage.description import RunDescription
from lightning_lottery.storage.folder import RunFolder
from lightning_lottery.storage.names import FILES
from lightning_lottery.storage.plain_values import State
from lightning_lottery.storage.tested import RoundTest
from lightning_lottery.tickets.round_id import RoundId
from tests.helpers.records import record


def test_records_are_written_one_per_line_and_read_back(tmp_path):
    folder = RunFolder(tmp_path / "run")
    assert len(folder.read_records()) == 0
    records = Records([record(0, best=0.5, metrics={"val_acc": 0.5, "bad": math.nan}), record(1, "shuffle_mask")])
    folder.write_records(records)
    lines = (tmp_path / "run" / "rounds.jsonl").read_text().splitlines()
    assert [json.loads(line)["round"] for line in lines] == [0, 1]
    assert json.loads(lines[0])["metrics"] == {"val_acc": 0.5, "bad": None}, "JSON knows no NaN"
    assert folder.read_records()[1] == records[1]
    assert math.isnan(folder.read_records()[0].metrics["bad"])


def test_an_invalid_line_is_reported(tmp_path):
    (tmp_path / "rounds.jsonl").write_text('{"round": 0}\n')
    with pytest.raises(LotteryError, match=r"Line 1 of .*rounds.jsonl cannot be read"):
        RunFolder(tmp_path).read_records()


def test_next_free_never_takes_a_folder_that_holds_a_run(tmp_path):
    path = tmp_path / "lottery"
    assert RunFolder.next_free(path).path == path
    RunFolder(path).write_description(RunDescription())
    assert RunFolder.next_free(path).path == tmp_path / "lottery_1"
    RunFolder(tmp_path / "lottery_1").write_records(Records([record(0)]))
    assert RunFolder.next_free(path).path == tmp_path / "lottery_2"


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ConfigurationError, match="file' is a file"):
            RunFolder(path)


def test_clear_removes_a_run_and_nothing_else(tmp_path):
    folder = RunFolder(tmp_path)
    dense = Ticket({"w": torch.tensor([True])}, {"w": torch.ones(1)})
    assert folder.description() is None
    folder.write_description(RunDescription(arguments={"a": 1}, provenance={"seed": "3"}))
    assert folder.description() == RunDescription(arguments={"a": 1}, provenance={"seed": "3"})
    folder.write_records(Records([record(0)]))
    for entry in (RoundId(0), RoundId(1, "shuffle_mask")):
        dense.save(folder.ticket_path(entry))
    for name in FILES:
        (tmp_path / name).touch()
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "tickets" / "best.safetensors").write_text("mine too")
    folder.clear()
    assert not folder.has_run()
    assert not folder.holds_records()
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["best.safetensors", "notes.txt"]


def test_numbers_that_json_does_not_know_are_read_back(tmp_path):
    def same(first, second):
        return first == second or (math.isnan(first) and math.isnan(second))

    metrics = {"high": math.inf, "low": -math.inf, "none": math.nan, "one": 1.0}
    written = RoundRecord(0, "ticket", 1.0, 2, 2, 3, metrics=metrics, best_value=math.inf, best_step=3)
    folder = RunFolder(tmp_path)
    folder.write_records(Records([written]))
    json.loads((tmp_path / "rounds.jsonl").read_text(), parse_constant=pytest.fail)
    (read,) = folder.read_records()
    assert all(same(read.metrics[name], value) for name, value in metrics.items())
    assert read.best_value == math.inf


@dataclass(frozen=True)
class Some(State):
    tensor: torch.Tensor
    nested: list[dict[str, int | None]]


def test_states_are_read_without_running_code(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_state("rewind.pt", Some(torch.arange(3), [{"a": None}, {"b": 1}]))
    read = folder.read_state("rewind.pt", Some)
    assert torch.equal(read.tensor, torch.arange(3))
    assert read.nested == [{"a": None}, {"b": 1}]
    for content in (b"", b"no file of PyTorch"):
        (tmp_path / "rewind.pt").write_bytes(content)
        with pytest.raises(LotteryError, match=r"rewind\.pt cannot be read, so this run cannot be resumed"):
            folder.read_state("rewind.pt", Some)
    torch.save(math.sqrt, tmp_path / "evil.pt")
    with pytest.raises(LotteryError, match="cannot be read"):
        folder.read_state("evil.pt", Some)


def test_the_newest_checkpoint_must_exist_and_belong_to_the_round(tmp_path):
    folder = RunFolder(tmp_path / "run")
    assert folder.newest_checkpoint("round_01") is None
    path = tmp_path / "some.ckpt"
    folder.note_checkpoint(str(path), "round_01")
    assert folder.newest_checkpoint("round_01") is None
    path.touch()
    assert folder.newest_checkpoint("round_01") == str(path)
    assert folder.newest_checkpoint("round_02") is None
    copy = tmp_path / "copy"  # a copy of the run and its checkpoint: its own checkpoint comes first
    shutil.copytree(tmp_path / "run", copy / "run")
    shutil.copy(path, copy / "some.ckpt")
    assert RunFolder(copy / "run").newest_checkpoint("round_01") == str(copy / "some.ckpt")
    (copy / "some.ckpt").unlink()
    assert RunFolder(copy / "run").newest_checkpoint("round_01") == str(path)
    (tmp_path / "run" / "newest.json").write_text("{")
    assert folder.newest_checkpoint("round_01") is None


def test_test_metrics_are_read_as_they_were_written(tmp_path):
    folder = RunFolder(tmp_path / "run")
    tests = [RoundTest(0, "ticket", {"acc": 0.5}, None), RoundTest(1, "x", {"acc": math.nan}, {"acc": math.inf})]
    folder.write_tests(tests)
    read = folder.read_tests()
    assert read[RoundId(0)] == tests[0]
    assert math.isnan(read[RoundId(1, "x")].last["acc"])
    assert read[RoundId(1, "x")].best == {"acc": math.inf}
    (tmp_path / "run" / "tests.jsonl").write_text('{"round": 0}\n')
    with pytest.raises(LotteryError, match=r"Line 1 of .*tests.jsonl cannot be read"):
        folder.read_tests()
    folder.clear()
    assert folder.read_tests() == {}


def test_only_the_writer_writes(tmp_path):
    folder = RunFolder(tmp_path / "run", is_writer=False)
    folder.write_description(RunDescription())
    folder.write_state("rewind.pt", State())
    folder.write_records(Records([record(0)]))
    folder.write_ticket("rewind.safetensors", Ticket({"w": torch.tensor([True])}, {"w": torch.ones(1)}))
    folder.note_checkpoint("some.ckpt", "round_00")
    assert not (tmp_path / "run").exists()


def test_temporary_files_of_a_killed_process_are_removed(tmp_path):
    folder = RunFolder(tmp_path)
    (tmp_path / "tickets").mkdir()
    left = [
        tmp_path / ".rounds.jsonl.x1y2",
        tmp_path / "tickets" / ".round_01.safetensors.ab",
        tmp_path / ".rewind.pt.q",
    ]
    for path in [*left, tmp_path / ".hidden", tmp_path / "rounds.jsonl"]:
        path.touch()
    folder.remove_leftovers()
    assert sorted(path.name for path in tmp_path.rglob("*")) == [".hidden", "rounds.jsonl", "tickets"]


def test_a_missing_checkpoint_is_replaced_by_the_previous_one(tmp_path):
    folder = RunFolder(tmp_path / "run")
    first = tmp_path / "first.ckpt"
    first.touch()
    folder.note_checkpoint(str(first), "round_00")
    folder.note_checkpoint(str(tmp_path / "second.ckpt"), "round_00")  # another thread has not written it yet
    assert folder.newest_checkpoint("round_00") == str(first)
    (tmp_path / "second.ckpt").touch()
    assert folder.newest_checkpoint("round_00") == str(tmp_path / "second.ckpt")
    assert folder.newest_checkpoint("round_01") is None


def test_a_checkpoint_at_a_url(tmp_path):
    folder, address = RunFolder(tmp_path / "run"), "memory://bucket/a.ckpt"
    folder.note_checkpoint(address, "round_00")
    assert folder.newest_checkpoint("round_00") is None
    with fsspec.open(address, "wb") as file:
        file.write(b"content")
    assert folder.newest_checkpoint("round_00") == address


def test_records_of_earlier_versions_are_read(tmp_path):
    line = {"round": 1, "branch": "ticket", "density": 0.5, "kept": 5, "prunable": 10, "parameters": 12}
    (tmp_path / "rounds.jsonl").write_text(json.dumps({**line, "ticket": "tickets/round_01.safetensors"}) + "\n")
    assert RunFolder(tmp_path).read_records()[1].ticket_path == "tickets/round_01.safetensors"
