"""Which checkpoints a run folder remembers, and whether their files still are what they were."""

import json
import math

import fsspec
import pytest
import torch

from lightning_lottery.storage.description import RunDescription
from lightning_lottery.storage.folder import RunFolder
from lightning_lottery.tickets.round_id import RoundId


class Saved:
    """A run folder with checkpoints beside it."""

    def __init__(self, path):
        self.path, self.folder = path, RunFolder(path / "run")
        self.folder.write_description(RunDescription(run="mine"))

    def save(self, name, number, step, best_step=None, is_whole=True, run="mine", **states):
        checkpoint = {"global_step": step, "state_dict": {}}
        if is_whole:
            state = {"run": run, "round": number, "branch": "ticket"}
            checkpoint["callbacks"] = {"Other": {"run": 5}, "Lottery": state, **states}
        torch.save(checkpoint, self.path / name)
        self.folder.note_checkpoint(str(self.path / name), RoundId(number).name, step, best_step, is_whole)

    def at(self, number, step):
        found = self.folder.checkpoint_at(RoundId(number), step)
        return None if found is None else found.rpartition("/")[2]

    def entries(self):
        return json.loads((self.path / "run" / "newest.json").read_text())


@pytest.fixture
def saved(tmp_path):
    return Saved(tmp_path)


def test_the_last_and_the_best_checkpoint_of_each_round_stay_known(saved):
    for number in (0, 1):
        for step in range(10, 100, 10):
            # The best value is only known after the validation that follows at the same step.
            saved.save(f"{number}-{step}.ckpt", number, step, best_step=None if step == 10 else min(step - 10, 40))
            if step in (40, 90):
                saved.save(f"{number}-last.ckpt", number, step, best_step=40)
    for number in (0, 1):
        assert saved.at(number, 40) == f"{number}-40.ckpt"
        assert saved.at(number, 90) == f"{number}-last.ckpt"
        assert saved.at(number, 50) is None
    assert len(saved.entries()) == 6
    (saved.path / "1-last.ckpt").unlink()
    assert saved.at(1, 90) == "1-90.ckpt", "another file with the same weights"
    assert saved.folder.newest_checkpoint("round_01") == str(saved.path / "1-90.ckpt")


def test_the_number_of_remembered_checkpoints_is_limited(saved):
    """Lightning counts no steps with some manual optimizers, so that all checkpoints have the same step."""
    for number in range(50):
        saved.save(f"{number}.ckpt", 0, 0, best_step=0)
    assert len(saved.entries()) == 6


def test_checkpoints_of_weights_alone_can_be_tested_but_not_resumed(saved):
    saved.save("whole.ckpt", 0, 10)
    for step in (20, 30):
        saved.save(f"weights-{step}.ckpt", 0, step, is_whole=False)
    assert saved.folder.newest_checkpoint("round_00") == str(saved.path / "whole.ckpt")
    assert saved.at(0, 30) == "weights-30.ckpt"


def test_a_file_that_another_training_has_overwritten_is_not_the_checkpoint(saved):
    saved.save("a.ckpt", 0, 10)
    assert saved.at(0, 10) == "a.ckpt"
    entries = saved.entries()
    for changes in ({"step": 20}, {"run": "other"}, {"number": 1}):
        saved.save("a.ckpt", **{"number": 0, "step": 10, **changes})
        (saved.path / "run" / "newest.json").write_text(json.dumps(entries))
        assert saved.at(0, 10) is None


def test_an_incomplete_file_is_not_the_checkpoint(saved):
    saved.save("a.ckpt", 0, 10)
    content = (saved.path / "a.ckpt").read_bytes()
    for damaged in (content[: len(content) // 2], b""):
        (saved.path / "a.ckpt").write_bytes(damaged)
        assert saved.at(0, 10) is None


def test_a_checkpoint_with_foreign_objects_is_left_to_the_trainer(saved):
    saved.save("a.ckpt", 0, 10, Custom=math.sqrt)
    assert saved.at(0, 10) == "a.ckpt"


def test_a_checkpoint_at_a_url(saved):
    saved.save("a.ckpt", 0, 10)
    url = "memory://tested/a.ckpt"
    with fsspec.open(url, "wb") as file:
        file.write((saved.path / "a.ckpt").read_bytes())
    saved.folder.note_checkpoint(url, "round_00", 10)
    (saved.path / "a.ckpt").unlink()
    assert saved.folder.checkpoint_at(RoundId(0), 10) == url


def test_a_moved_folder_has_every_file_once(saved, tmp_path):
    saved.save("newest.ckpt", 0, 10, best_step=10)
    (tmp_path / "run").rename(tmp_path / "new")
    moved = tmp_path / "new" / "inside"
    moved.mkdir()
    saved.path, saved.folder = tmp_path, RunFolder(tmp_path / "new")
    saved.folder.note_checkpoint(str(tmp_path / "newest.ckpt"), "round_00", 20, 10)
    entries = json.loads((tmp_path / "new" / "newest.json").read_text())
    assert [entry["step"] for entry in entries] == [20]


def test_checkpoints_of_earlier_versions_are_found(tmp_path):
    folder = RunFolder(tmp_path)
    (tmp_path / "a.ckpt").touch()
    (tmp_path / "newest.json").write_text(json.dumps([{"path": str(tmp_path / "a.ckpt"), "round": "round_00"}]))
    assert folder.newest_checkpoint("round_00") == str(tmp_path / "a.ckpt")
    assert folder.checkpoint_at(RoundId(0), 7) is None
    folder.note_checkpoint(str(tmp_path / "b.ckpt"), "round_00", 8)
    assert folder.newest_checkpoint("round_00") == str(tmp_path / "a.ckpt"), (
        "the new one was not written completely"
    )
