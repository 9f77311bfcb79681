"""Runs the processes of a study as tasks of Ray, on this machine or on a cluster."""

import importlib
import logging
import os
import re
import socket
import subprocess
import sys
import uuid
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning_lottery.errors import ConfigurationError
from lightning_lottery.files import write_atomically
from lightning_lottery.plain import check_integer, first_line
from lightning_lottery.study.engine import Engine, Workers, check_places, cores
from lightning_lottery.study.job import Job

_LOCAL = "local"
_ANSWER = 10.0  # seconds in which the cluster must answer
_PATIENCE = 60.0  # seconds in which every node must have answered


@dataclass(frozen=True)
class Ray(Engine):
    """Runs each seed in a task of Ray core, with one CPU.

    The command runs on the nodes as it would here, so all nodes need the same Python environment, the same current
    folder and the same folder of the study, at the same paths. This is checked before anything starts. Ray repeats
    a task whose worker or node is lost, and the seed resumes.

    Args:
        address: The address of a running cluster, as for ``ray.init``, such as ``"auto"``. Default: a new Ray on
            this machine, which ends with the study.
        jobs: How many seeds run at the same time. Default: as many as the resources allow.
        gpus_per_seed: How many GPUs each seed sees: 0, 1, 2, …, or a fraction such as 0.5, with which seeds share
            a GPU. Default: 1 if Ray has GPUs.
        max_retries: How often Ray repeats a task whose worker or node is lost.

    Raises:
        ConfigurationError: An argument is invalid; or, when the study starts, Ray is not installed or cannot be
            reached, has too few resources, or a node does not see the files.
    """

    address: str = _LOCAL
    jobs: int | None = None
    gpus_per_seed: float | None = None
    max_retries: int = 3

    def __post_init__(self) -> None:
        check_places(self.jobs, self.gpus_per_seed)
        check_integer("max_retries", self.max_retries, 0, "max_retries=3")
        if not isinstance(self.address, str) or not self.address:
            raise ConfigurationError(
                f"address={self.address!r} is not an address. Write for example address='auto'."
            )

    def open(self, dirpath: Path) -> Workers:
        if find_spec("ray") is None:
            raise ConfigurationError("Ray is not installed. Write pip install 'lightning-lottery[ray]'.")
        return _RayWorkers(self, dirpath.absolute())


class _RayWorkers(Workers):
    """A connection to Ray.

    Args:
        engine: The arguments.
        dirpath: The folder of the study.
    """

    def __init__(self, engine: Ray, dirpath: Path) -> None:
        ray: Any = importlib.import_module("ray")
        self._ray, self._running = ray, dict[Any, int]()
        self._connect(engine)
        try:
            resources = ray.cluster_resources()
            gpus = engine.gpus_per_seed
            gpus = min(1.0, resources.get("GPU", 0.0)) if gpus is None else gpus
            fit = int(min(resources.get("CPU", 0.0), resources.get("GPU", 0.0) / gpus if gpus else float("inf")))
            if fit < 1:
                raise ConfigurationError(
                    f"A seed needs 1 CPU and {gpus:g} GPUs, but Ray has only {resources.get('CPU', 0):g} CPUs and "
                    f"{resources.get('GPU', 0):g} GPUs in all. Write a smaller gpus_per_seed, or add nodes."
                )
            self.places = engine.jobs or fit
            check_nodes(dirpath)
        except BaseException:
            self.close()
            raise
        # A function of the standard library: workers need not import this package.
        self._call = ray.remote(subprocess.call).options(
            num_cpus=1, num_gpus=gpus, max_retries=engine.max_retries, name="lightning-lottery seed"
        )

    def _connect(self, engine: Ray) -> None:
        if self._ray.is_initialized():
            raise ConfigurationError("Ray already runs in this process. Call ray.shutdown() first.")
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if engine.address == _LOCAL:
            options |= {"num_cpus": engine.jobs or cores(), "include_dashboard": False}
        try:
            _check_reachable(engine.address)
            self._ray.init(address=engine.address, **options)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise ConfigurationError(
                f"Ray cannot be reached at address={engine.address!r}: {error}. Start a cluster with ray start "
                "--head, or leave the address out to use this machine."
            ) from error

    def start(self, job: Job) -> None:
        self._running[self._call.remote(job.start, stdin=subprocess.DEVNULL, cwd=str(Path.cwd()))] = job.seed

    def ended(self) -> dict[int, int]:
        if not self._running:
            return {}
        ready, _ = self._ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
        return {self._running.pop(task): self._code(task) for task in ready}

    def _code(self, task: Any) -> int:
        """The exit code of a command; 1 if Ray has given up on its task."""
        try:
            return int(self._ray.get(task))
        except self._ray.exceptions.RayError as error:
            print(f"Ray: {first_line(error)}", flush=True)
            return 1

    def close(self) -> None:
        # With the worker, its command ends.
        for task in self._running:
            self._ray.cancel(task, force=True)
        self._running.clear()
        self._ray.shutdown()


def _check_reachable(address: str) -> None:
    """Connects to an address with a port, since Ray tries for many minutes before it gives up.

    Raises:
        OSError: Nothing listens there.
    """
    if (found := re.fullmatch(r"(?:ray://)?(.+):(\d+)", address)) is not None:
        socket.create_connection((found[1].strip("[]"), int(found[2])), timeout=_ANSWER).close()


def check_nodes(dirpath: Path) -> None:
    """Checks that all nodes of the connected cluster see the same files as this process.

    Args:
        dirpath: The folder of the study.

    Raises:
        ConfigurationError: A node does not see the folder of the study, the current folder or this Python.
    """
    ray: Any = importlib.import_module("ray")
    strategies: Any = importlib.import_module("ray.util.scheduling_strategies")
    mark = dirpath / f".seen-by-all-{uuid.uuid4().hex}"
    write_atomically(mark, b"")
    paths = {str(mark): str(dirpath), str(Path.cwd()): str(Path.cwd()), sys.executable: sys.executable}
    exists = ray.remote(os.path.exists)
    try:
        asked = {}
        for node in (node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1):
            there = strategies.NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            name = node["NodeManagerHostname"]
            for path in paths:
                task = exists.options(num_cpus=0, scheduling_strategy=there).remote(path)
                asked[task] = name, paths[path]
        answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_PATIENCE)
        missing = [asked[task] for task in asked if task not in answered or not ray.get(task)]
    finally:
        mark.unlink(missing_ok=True)
    if missing:
        shown = "; ".join(f"{path} on {name}" for name, path in missing[:3])
        raise ConfigurationError(
            f"Not every node of Ray sees the files of this study: {shown}. Write a dirpath on storage that all "
            "nodes share, and start the study in a folder that all nodes share, with the same Python environment."
        )
