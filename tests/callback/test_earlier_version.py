"""Runs that version 0.1.0 started, before states were dataclasses, resume with this one."""

import shutil
import tarfile
from pathlib import Path

import pytest
import torch

from tests.helpers.earlier_version import STOPS, build, outcome

ARCHIVE = Path(__file__).parent / "data" / "earlier_version.tar.xz"


@pytest.fixture
def earlier(tmp_path):
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("start", ["checkpoint", "folder"])
def test_a_run_of_the_version_before_resumes(earlier, stop, start):
    """At a checkpoint in the round, and at the start of the round. Another CPU may round differently."""
    folder = earlier / stop
    if start == "folder":
        shutil.rmtree(folder / "checkpoints")
        (folder / "run" / "newest.json").unlink()  # it names the folder in which the run was started
    trainer, model, data, lottery = build(folder)
    path = Path(lottery.resume(trainer))
    assert path.suffix == (".ckpt" if start == "checkpoint" else ""), path
    trainer.fit(model, *data, ckpt_path=path)
    found = outcome(folder, model, lottery)
    expected = torch.load(earlier / "outcome.pt", weights_only=True)
    torch.testing.assert_close(found["weights"], expected["weights"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["tickets"], expected["tickets"], rtol=1e-4, atol=1e-5)
    for record, then in zip(found["records"], expected["records"], strict=True):
        assert record[:5] == then[:5]
        assert record[5] == pytest.approx(then[5], rel=1e-4)
        assert record[6] == pytest.approx(then[6], rel=1e-4)
