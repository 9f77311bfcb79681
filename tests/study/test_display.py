"""What a user sees while a study runs."""

import io
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from lightning_lottery import Records
from lightning_lottery.study import Replicate, display, progress
from lightning_lottery.study.display import Lines, LiveTable
from lightning_lottery.study.job import Job
from lightning_lottery.study.progress import Progress
from lightning_lottery.tickets.round_id import RoundId
from tests.helpers.fits import needs
from tests.helpers.records import record as record_of
from tests.helpers.short_run import begin, record, write


def at(seed, state, done, rounds=5):
    """The progress of a run with some finished rounds of 2 seconds, the last of which has just ended."""
    import json

    folder = Path(f"seed_{seed}")
    begin(folder, seed, rounds)
    write(folder / "rounds.jsonl", "".join(json.dumps(record(number, seed)) + "\n" for number in range(done)))
    return Progress.of(Job(seed, folder, []), state, Replicate.at(folder))


def test_the_time_that_is_left(monkeypatch):
    now = time.time()
    monkeypatch.setattr(progress.time, "time", lambda: now)
    at(0, "running", 3)
    os.utime("seed_0/rounds.jsonl", (now - 0.5, now - 0.5))
    running = Progress.of(Job(0, Path("seed_0"), []), "running", Replicate.at(Path("seed_0")))
    assert running.seconds_left == pytest.approx(2 * 2.0 - 0.5, abs=0.01)
    os.utime("seed_0/rounds.jsonl", (now - 99, now - 99))
    running = Progress.of(Job(0, Path("seed_0"), []), "running", Replicate.at(Path("seed_0")))
    assert running.seconds_left == pytest.approx(2.0, abs=0.01), "a round that takes longer is nearly over"
    assert at(0, "running", 0).time_left == ""
    assert at(0, "finished", 5).time_left == ""


def test_search_rounds_are_expected_to_be_as_short_as_those_before(monkeypatch):
    """Round 0 took 10 seconds and the first search round 2; two more of those and a ticket are left."""
    now = time.time()
    monkeypatch.setattr(progress.time, "time", lambda: now)
    folder, rounds = Path("seed_0"), [RoundId(0), *(RoundId(n, "search") for n in (1, 2, 3)), RoundId(4)]
    finished = [record_of(number=0, seconds=10.0), record_of(number=1, branch="search", seconds=2.0)]

    def left(count):
        run = SimpleNamespace(path=folder, plan=rounds, records=Records(finished[:count]))
        return progress._seconds_left(run)

    folder.mkdir()
    (folder / "rounds.jsonl").touch()
    os.utime(folder / "rounds.jsonl", (now - 0.5, now - 0.5))
    assert left(2) == pytest.approx(2 * 2 + 10 - 0.5, abs=0.01)
    assert left(1) == pytest.approx(4 * 10 - 0.5, abs=0.01), "nothing is known about search rounds yet"


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.4, "3 s"), (59.4, "59 s"), (61, "1 min"), (3540, "59 min"), (3720, "1 h 02 min")]
)
def test_durations_in_words(seconds, text):
    assert Progress(0, "running", None, seconds).time_left == text


def test_one_line_for_every_round_and_state(capsys):
    lines = Lines()
    waiting = Progress.of(Job(1, Path("none"), []), "waiting", None)
    lines.show([at(0, "waiting", 1), waiting])
    assert capsys.readouterr().out == "", "what was finished before is not shown again"
    lines.show([at(0, "running", 1), waiting])
    lines.show([at(0, "running", 1), waiting])
    assert capsys.readouterr().out == "seed 0 · running · 1 of 5 rounds\n"
    lines.show([at(0, "running", 3), waiting])
    first, second = capsys.readouterr().out.splitlines()
    assert first == (
        "seed 0 · round 1/4 · density 0.5000 · val_acc 0.9000 · best 0.9000 at step 10 · 20 steps in 2.0 s"
    )
    assert second.startswith("seed 0 · round 2/4 · density 0.2500")
    assert second.endswith("4 s left")
    lines.show([at(0, "finished", 5), waiting])
    assert capsys.readouterr().out.splitlines()[-1] == "seed 0 · finished · 5 of 5 rounds"


def test_a_table_on_a_terminal(monkeypatch):
    needs("rich")
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    shown = display.display()
    assert isinstance(shown, LiveTable)
    with shown:
        shown.show([at(0, "running", 3), Progress.of(Job(12, Path("none"), []), "waiting", None)])
        shown.say("seed 12 was [killed]")
    text = terminal.getvalue()
    assert "seed 12 was [killed]" in text
    for cells in (["0", "running", "3 of 5", "0.2500", "0.9000", "4 s"], ["12", "waiting"]):
        assert any(line.split("\x1b")[0].split() == " ".join(cells).split() for line in text.splitlines()), cells
    assert "val_acc" in text


def test_lines_without_rich_or_terminal(monkeypatch):
    assert isinstance(display.display(), Lines)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(display, "find_spec", lambda _: None)
    assert isinstance(display.display(), Lines)
