import json
import math

import pytest
import torch

from lightning_lottery import ConfigurationError, LotteryError, Records, RoundRecord, Ticket
from lightning_lottery.records import Best, RunFolder, Tickets, round_name, smallest_matching


def record(number, branch="ticket", best=None, **fields):
    defaults = {"density": 0.5**number, "kept": 100, "prunable": 200, "parameters": 300}
    return RoundRecord(number, branch, best_value=best, **{**defaults, **fields})


def test_records_by_round_and_by_branch():
    records = Records([record(0), record(1), record(1, "shuffle_mask")])
    assert [r.round for r in records] == [0, 1, 1]
    assert records[1].branch == "ticket"
    assert records["shuffle_mask"][1].branch == "shuffle_mask"
    assert list(records["ticket"]) == [0, 1]
    assert records.branches() == ["ticket", "shuffle_mask"]
    assert len(records[:2]) == 2


@pytest.mark.parametrize(("mode", "value", "step"), [("max", 0.9, 2), ("min", 0.1, 3)])
def test_best_is_the_first_of_the_best_and_never_nan(mode, value, step):
    best = Best(mode)
    for number, seen in enumerate([math.nan, 0.5, 0.9, 0.1, 0.9, 0.1, math.nan]):
        best.observe(seen, number)
    assert (best.value, best.step) == (value, step)


@pytest.mark.parametrize(
    ("mode", "values", "tolerance", "expected"),
    [
        ("max", [0.90, 0.91, 0.89, 0.90, 0.80], 0, 3),
        ("max", [0.90, 0.91, 0.89, 0.80, 0.80], 0, 1),
        ("max", [0.90, 0.91, 0.89, 0.80, 0.80], 0.0101, 2),
        ("max", [0.90, 0.80, 0.80, 0.80, 0.80], 0, 0),
        ("min", [0.30, 0.29, 0.31, 0.40, 0.50], 0, 1),
        ("min", [0.30, 0.29, 0.31, 0.40, None], 0.1001, 3),
    ],
)
def test_smallest_matching(mode, values, tolerance, expected):
    records = Records([record(number, best=value) for number, value in enumerate(values)])
    records.append(record(4, "shuffle_mask", best=1.0 if mode == "max" else 0.0))
    assert smallest_matching(records, mode, tolerance).round == expected


def test_smallest_matching_says_what_is_missing():
    with pytest.raises(ConfigurationError, match="No round has finished"):
        smallest_matching(Records(), "max", 0)
    with pytest.raises(ConfigurationError, match="monitor='val_acc'"):
        smallest_matching(Records([record(0)]), "max", 0)
    with pytest.raises(ConfigurationError, match="tolerance=-1"):
        smallest_matching(Records([record(0, best=0.9)]), "max", -1)


def test_records_are_written_a_line_a_round_and_read_back(tmp_path):
    folder = RunFolder(tmp_path / "run")
    assert len(folder.read_records()) == 0
    records = Records([record(0, best=0.5, metrics={"val_acc": 0.5, "bad": math.nan}), record(1, "shuffle_mask")])
    folder.write_records(records)
    lines = (tmp_path / "run" / "rounds.jsonl").read_text().splitlines()
    assert [json.loads(line)["round"] for line in lines] == [0, 1]
    assert json.loads(lines[0])["metrics"] == {"val_acc": 0.5, "bad": None}, "JSON knows no NaN"
    assert folder.read_records()[1] == records[1]
    assert math.isnan(folder.read_records()[0].metrics["bad"])


def test_a_foreign_line_is_said(tmp_path):
    (tmp_path / "rounds.jsonl").write_text('{"round": 0}\n')
    with pytest.raises(LotteryError, match=r"Line 1 of .*rounds.jsonl is no record"):
        RunFolder(tmp_path).read_records()


def test_next_free_never_takes_a_folder_that_holds_a_run(tmp_path):
    path = tmp_path / "lottery"
    assert RunFolder.next_free(path).path == path
    dense = Ticket({"w": torch.tensor([True])}, {"w": torch.ones(1)})
    RunFolder(path).begin({}, dense)
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
    assert folder.arguments() is None
    folder.begin({"arguments": {"a": 1}}, dense)
    folder.write_records(Records([record(0)]))
    dense.save(folder.ticket_path(0))
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "tickets" / "best.safetensors").write_text("mine too")
    assert folder.arguments() == {"a": 1}
    folder.clear()
    assert not folder.was_begun()
    assert not folder.holds_records()
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["best.safetensors", "notes.txt"]


def test_tickets_by_round_and_by_branch(tmp_path):
    folder = RunFolder(tmp_path)
    dense = Ticket({"w": torch.tensor([True])}, {"w": torch.ones(1)})
    for number, branch in [(0, "ticket"), (1, "ticket"), (1, "shuffle_mask"), (100, "ticket")]:
        dense.save(folder.ticket_path(number, branch))
    tickets = Tickets(folder)
    assert list(tickets) == [0, 1, 100]
    assert list(tickets["shuffle_mask"]) == [1]
    assert torch.equal(tickets[1].weights["w"], torch.ones(1))
    assert len(Tickets(None)) == 0
    with pytest.raises(KeyError, match=r"no ticket 2 of branch 'ticket'; there are those of rounds \[0, 1, 100\]"):
        tickets[2]
    assert repr(tickets) == "Tickets(branch='ticket', rounds=[0, 1, 100])"
    with pytest.raises(KeyError):
        tickets["shuffle_mask"][0]


def test_round_names():
    assert round_name(3) == "round_03"
    assert round_name(12, "shuffle_mask") == "round_12_shuffle_mask"
