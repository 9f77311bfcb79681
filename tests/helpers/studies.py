"""Studies of short runs."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from lightning_lottery import Study
from tests.helpers.scripts import ROOT

COMMAND = [sys.executable, str(ROOT / "tests" / "helpers" / "short_run.py"), "{seed}", "{dirpath}"]


def study(*options, seeds=(0, 1, 2), dirpath="exp"):
    return Study(dirpath, [*COMMAND, *map(str, options)], seeds)


def starts(seed, dirpath="exp"):
    lines = (Path(dirpath) / f"seed_{seed}" / "starts").read_text().splitlines()
    return [json.loads(line) for line in lines]


def heed_ctrl_c():
    """Lets a new process react to SIGINT even if the tests were started in the background, where it is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run_as_process(*options):
    """Starts a study of two long seeds in a process, and waits until both have finished a round."""
    code = f"from tests.helpers.studies import study; study('--seconds', 0.3, *{options!r}, seeds=[0, 1]).run()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=heed_ctrl_c,
    )
    wait_for(lambda: all((Path("exp") / f"seed_{seed}" / "rounds.jsonl").exists() for seed in (0, 1)))
    return process


def wait_for(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_alive(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{process}/stat")
    return not state.exists() or ") Z " not in state.read_text()


def children(process):
    """The command lines of the child processes of a process, by number (Linux)."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == process:
                found[int(path.name)] = (path / "cmdline").read_text()
        except OSError:  # it has ended
            continue
    return found
