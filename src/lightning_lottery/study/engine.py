"""What runs the processes of a study: the base of the engines, and processes on this machine."""

import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch
from typing_extensions import Self

from lightning_lottery.errors import ConfigurationError
from lightning_lottery.plain import check_integer, check_number, plain
from lightning_lottery.study.job import Job

_GRACE = 20.0  # seconds in which a stopped fit may end its batch and its files


class Workers(ABC):
    """The opened engine of a running study. Leaving its ``with`` block stops everything that still runs.

    Attributes:
        places: How many seeds may run at the same time.
    """

    places: int

    @abstractmethod
    def start(self, job: Job) -> None:
        """Starts a seed. At most ``places`` seeds run at the same time."""

    @abstractmethod
    def ended(self) -> dict[int, int]:
        """The exit codes of seeds that have ended since the last call. A negative one is the signal of a kill."""

    @abstractmethod
    def close(self) -> None:
        """Stops what still runs."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Engine(ABC):
    """Where the processes of a study run."""

    @abstractmethod
    def open(self, dirpath: Path) -> Workers:
        """Prepares to run seeds.

        Args:
            dirpath: The folder of the study. It exists.

        Raises:
            ConfigurationError: The engine cannot work here.
        """


@dataclass(frozen=True)
class Processes(Engine):
    """Runs seeds in processes on this machine, each with one CPU thread (unless ``OMP_NUM_THREADS`` is set).

    Args:
        jobs: How many seeds run at the same time. Default: as many as there are GPUs for, or else CPU cores.
        gpus_per_seed: How many GPUs each seed sees: 0, 1, 2, …, or a fraction such as 0.5, with which seeds share
            GPUs. Default: 1 if there is a GPU.

    Raises:
        ConfigurationError: An argument is invalid; or, when the study starts, there are too few GPUs.
    """

    jobs: int | None = None
    gpus_per_seed: float | None = None

    def __post_init__(self) -> None:
        check_places(self.jobs, self.gpus_per_seed)

    def open(self, dirpath: Path) -> Workers:
        shares = gpu_shares(visible_gpus(), self.gpus_per_seed)
        return _LocalWorkers(self.jobs or len(shares) or cores(), shares)


class _LocalWorkers(Workers):
    """Processes on this machine.

    Args:
        places: How many run at the same time.
        shares: The GPUs for each of them, as in ``CUDA_VISIBLE_DEVICES``; with fewer shares than places, places
            share them. If there is none, no GPU is visible.
    """

    def __init__(self, places: int, shares: Sequence[str]) -> None:
        self.places = places
        self._free = [shares[place % len(shares)] if shares else "" for place in range(places)]
        self._running: dict[int, tuple[subprocess.Popen[bytes], str]] = {}

    def start(self, job: Job) -> None:
        share = self._free.pop(0)
        # A session of its own: Ctrl-C reaches only the study, which stops its processes one by one.
        process = subprocess.Popen(
            job.start,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": share},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._running[job.seed] = process, share

    def ended(self) -> dict[int, int]:
        codes = {seed: code for seed, (p, _) in self._running.items() if (code := p.poll()) is not None}
        for seed in codes:
            process, share = self._running.pop(seed)
            _end_group(process)  # data workers and other processes of a killed fit
            self._free.append(share)
        return codes

    def close(self) -> None:
        try:
            for process, _ in self._running.values():
                process.terminate()
            deadline = time.monotonic() + _GRACE
            for process, _ in self._running.values():
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=max(0.0, deadline - time.monotonic()))
        finally:  # also after a second Ctrl-C
            for process, _ in self._running.values():
                process.kill()
                _end_group(process)
                process.wait()
            self._running.clear()


def _end_group(process: "subprocess.Popen[bytes]") -> None:
    """Kills what is left of the process group that a process has led."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def check_places(jobs: int | None, gpus_per_seed: float | None) -> None:
    """Checks the arguments that engines have in common.

    Raises:
        ConfigurationError: One of them is invalid.
    """
    if jobs is not None:
        check_integer("jobs", jobs, 1, "jobs=2")
    if gpus_per_seed is None:
        return
    number = check_number("gpus_per_seed", gpus_per_seed, "of at least 0", "gpus_per_seed=1")
    if number > 1 and number != int(number):
        raise ConfigurationError(f"gpus_per_seed={plain(number)!r} must be a whole number, or a fraction below 1.")


def cores() -> int:
    """The number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """The GPUs of this process, as they are named in ``CUDA_VISIBLE_DEVICES``."""
    count = torch.cuda.device_count()
    chosen = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return chosen[:count] if chosen else [str(number) for number in range(count)]


def gpu_shares(gpus: Sequence[str], gpus_per_seed: float | None) -> list[str]:
    """Divides GPUs among seeds.

    Args:
        gpus: The names of the GPUs.
        gpus_per_seed: How many each seed sees; by default 1 if there is a GPU.

    Returns:
        The names for each of the seeds that can run at the same time, joined by commas. Empty without GPUs.

    Raises:
        ConfigurationError: There are too few GPUs.
    """
    number = min(1, len(gpus)) if gpus_per_seed is None else gpus_per_seed
    if number == 0:
        return []
    if number > len(gpus):
        raise ConfigurationError(
            f"gpus_per_seed={plain(number)!r}, but there are {len(gpus)} GPUs here. Write a smaller number, or "
            "leave it out."
        )
    if number < 1:
        return [name for _ in range(int(1 / number)) for name in gpus]
    each = int(number)
    return [",".join(gpus[start : start + each]) for start in range(0, len(gpus) - each + 1, each)]
