"""How the processes of a study share a machine."""

import os
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_lottery import ConfigurationError
from lightning_lottery.study import Processes
from lightning_lottery.study.engine import cores, gpu_shares, visible_gpus
from lightning_lottery.study.job import Job
from tests.helpers.studies import wait_for


@pytest.mark.parametrize(
    ("gpus", "per_seed", "shares"),
    [
        (["0", "1"], None, ["0", "1"]),
        (["0", "1", "2", "3", "4"], 2, ["0,1", "2,3"]),
        (["4", "7"], 2, ["4,7"]),
        (["0", "1"], 0.5, ["0", "1", "0", "1"]),
        (["MIG-a"], 0.3, ["MIG-a"] * 3),
        (["0", "1"], 0, []),
        ([], None, []),
        ([], 0, []),
    ],
)
def test_gpus_are_divided_among_seeds(gpus, per_seed, shares):
    assert gpu_shares(gpus, per_seed) == shares


@given(st.integers(0, 9), st.integers(1, 9))
def test_no_gpu_is_given_to_two_seeds(count, per_seed):
    gpus = [str(number) for number in range(count)]
    if per_seed > count:
        with pytest.raises(ConfigurationError, match=f"gpus_per_seed={per_seed}, but there are {count} GPUs here"):
            gpu_shares(gpus, per_seed)
        return
    given_out = [name for share in gpu_shares(gpus, per_seed) for name in share.split(",")]
    assert len(set(given_out)) == len(given_out) == count // per_seed * per_seed


@pytest.mark.parametrize("number", [-1, 1.5, "two"])
def test_numbers_of_gpus_that_are_refused(number):
    with pytest.raises(ConfigurationError, match="gpus_per_seed="):
        Processes(gpus_per_seed=number)


def test_the_gpus_that_this_process_sees(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, 3")
    assert visible_gpus() == ["5", "3"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert visible_gpus() == []


def seen(places, monkeypatch, gpus):
    """What processes that run at the same time see as their GPUs."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    code = "import os, sys, pathlib; pathlib.Path(sys.argv[1]).write_text(os.environ['CUDA_VISIBLE_DEVICES'])"
    found = []
    with Processes(jobs=places).open(Path()) as workers:
        for seed in range(5):
            while seed - len(found) >= workers.places:
                wait_for(lambda: found.extend(workers.ended()) or len(found))
            workers.start(Job(seed, Path(), [sys.executable, "-c", code, f"seen_{seed}"]))
        wait_for(lambda: found.extend(workers.ended()) or len(found) == 5)
    return workers.places, [Path(f"seen_{seed}").read_text() for seed in range(5)]


def test_each_seed_sees_its_own_gpus(monkeypatch):
    places, devices = seen(None, monkeypatch, gpus=2)
    assert places == 2
    assert devices[:2] == ["0", "1"]
    assert set(devices) == {"0", "1"}
    places, devices = seen(4, monkeypatch, gpus=2)
    assert (places, devices[:4]) == (4, ["0", "1", "0", "1"]), "more seeds than GPUs share them"
    assert seen(None, monkeypatch, gpus=0) == (cores(), [""] * 5)


def test_the_cores_that_this_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 4, 5}, raising=False)
    assert cores() == 3


def test_a_process_that_does_not_end_is_killed(monkeypatch):
    from lightning_lottery.study import engine

    monkeypatch.setattr(engine, "_GRACE", 0.5)
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready'); time.sleep(60)"
    job = Job(0, Path(), [sys.executable, "-c", code])
    with Processes(jobs=1).open(Path()) as workers:
        workers.start(job)
        wait_for(lambda: job.error_line() == "ready")
    assert workers.ended() == {}
    log = job.log.read_text()
    assert " $ " in log.splitlines()[1], "the log begins with the time and the command"


def test_a_command_that_cannot_be_started(tmp_path):
    job = Job(0, tmp_path, [str(tmp_path)])
    with Processes(jobs=1).open(tmp_path) as workers:
        workers.start(job)
        codes = {}
        wait_for(lambda: codes.update(workers.ended()) or codes)
    assert codes == {0: 127}
    assert job.error_line() == f"{tmp_path} cannot be started: Permission denied."
