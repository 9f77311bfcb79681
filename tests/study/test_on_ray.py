"""Seeds as tasks of a local Ray."""

import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from lightning_lottery import ConfigurationError, Study, TrainingError
from lightning_lottery.study import Ray, on_ray
from tests.helpers.fits import needs
from tests.helpers.studies import is_alive, starts, study, wait_for


def test_bad_arguments_are_refused(monkeypatch):
    with pytest.raises(ConfigurationError, match="max_retries=-1"):
        Ray(max_retries=-1)
    with pytest.raises(ConfigurationError, match="address=3 is not an address"):
        Ray(3)
    with pytest.raises(ConfigurationError, match=r"gpus_per_seed=1.5 must be a whole number"):
        Ray(gpus_per_seed=1.5)
    monkeypatch.setattr(on_ray, "find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match=r"pip install 'lightning-lottery\[ray\]'"):
        study().run(Ray())


@pytest.mark.slow
def test_seeds_run_on_a_local_ray(capfd):
    needs("ray")
    with pytest.raises(TrainingError, match="seed 2: RuntimeError: round 1 has failed"):
        study("--fail-at", 1, "--of-seeds", 2).run(Ray(jobs=2))
    assert "seed 1 · round 0/2 · density 1.0000 · val_acc 0.8900" in capfd.readouterr().out
    assert [len(run.records) for run in Study.read("exp").values()] == [3, 3, 1]
    assert starts(0)[0]["OMP_NUM_THREADS"] == "1"
    assert not list(Path("exp").glob(".seen*"))


@pytest.mark.slow
def test_a_seed_goes_on_when_its_worker_is_killed():
    """The task restarts in another worker, and the process of the killed one is gone."""
    ray = needs("ray")
    killed = []

    def kill_a_worker():
        wait_for(lambda: Path("exp/seed_1/rounds.jsonl").exists())
        process = starts(1)[0]["process"]
        worker = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
        assert "ray::" in Path(f"/proc/{worker}/cmdline").read_text()
        os.kill(worker, signal.SIGKILL)
        wait_for(lambda: not is_alive(process), seconds=5)
        killed.append(worker)

    if sys.platform != "linux":
        pytest.skip("Only on Linux do seeds end with a worker that is killed.")
    thread = threading.Thread(target=kill_a_worker)
    thread.start()
    found = study("--rounds", 12, "--seconds", 0.5, seeds=[0, 1]).run(Ray(jobs=2))
    thread.join()
    assert killed
    assert [[record.round for record in run.records] for run in found.values()] == [list(range(12))] * 2
    assert [len(starts(seed)) for seed in (0, 1)] == [1, 2]
    assert not ray.is_initialized()


@pytest.mark.slow
def test_what_ray_cannot_do_is_an_error_before_a_seed_starts(monkeypatch):
    ray = needs("ray")
    for address in ("127.0.0.1:1", "ray://localhost:1", "auto"):
        with pytest.raises(ConfigurationError, match=f"Ray cannot be reached at address='{address}': .*ray start"):
            study().run(Ray(address))
    with pytest.raises(ConfigurationError, match=r"1 CPU and 2 GPUs, but Ray has only 1 CPUs and 0 GPUs in all"):
        study().run(Ray(jobs=1, gpus_per_seed=2))
    ray.init(num_cpus=1, include_dashboard=False)
    try:
        with pytest.raises(ConfigurationError, match=r"Ray already runs in this process. Call ray.shutdown\(\)"):
            study().run(Ray())
        on_ray.check_nodes(Path.cwd())
        monkeypatch.setattr(sys, "executable", "/elsewhere/python")
        with pytest.raises(ConfigurationError, match=r"Not every node .*: /elsewhere/python on .* nodes share"):
            on_ray.check_nodes(Path.cwd())
        there = Path.cwd() / "other"
        monkeypatch.setattr(on_ray, "write_atomically", lambda path, content: None)  # as if on another disk
        with pytest.raises(ConfigurationError, match=rf"{there} on .*Write a dirpath on storage"):
            on_ray.check_nodes(there)
    finally:
        ray.shutdown()
    assert all(not Path("exp", f"seed_{seed}", "starts").exists() for seed in (0, 1, 2))
