"""The command of a study in tests: a run of a few rounds that trains nothing, and resumes where it was.

python short_run.py SEED DIRPATH [--rounds 3] [--seconds 0.0] [--fail-at ROUND] [--die-at ROUND] [--nothing]

It fails and dies at a round only once; at round -1, before all others, it always fails.

It uses only the standard library, since importing the package takes seconds. Each start is noted in ``starts``,
with the threads and the GPUs that it sees.
"""

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("seed", type=int)
    parser.add_argument("dirpath", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--fail-at", type=int, nargs="*", default=[])
    parser.add_argument("--die-at", type=int, nargs="*", default=[])
    parser.add_argument("--config")
    parser.add_argument("--exit-code", type=int)
    parser.add_argument("--of-seeds", type=int, nargs="*")
    parser.add_argument("--nothing", action="store_true")
    options = parser.parse_args()
    folder = options.dirpath
    is_meant = options.of_seeds is None or options.seed in options.of_seeds
    with (folder / "starts").open("a") as file:
        seen = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")}
        print(json.dumps({"process": os.getpid(), "began": time.time(), **seen}), file=file)
    if options.nothing:
        return
    if is_meant and -1 in options.fail_at:
        sys.exit("ConfigurationError: amount=3 is wrong")
    begin(folder, options.seed, options.rounds)
    lines = (folder / "rounds.jsonl").read_text().splitlines() if (folder / "rounds.jsonl").exists() else []
    for number in range(len(lines), options.rounds):
        time.sleep(options.seconds)
        if is_meant and number in options.fail_at and is_first(folder / f"failed_{number}"):
            print(f"RuntimeError: round {number} has failed\nCompile with more options for a longer message.")
            sys.exit(1)
        if is_meant and number in options.die_at and is_first(folder / f"died_{number}"):
            sys.stdout.flush()
            if options.exit_code is not None:
                sys.exit(options.exit_code)
            os.kill(os.getpid(), signal.SIGKILL)
        lines.append(json.dumps(record(number, options.seed)))
        write(folder / "rounds.jsonl", "\n".join(lines) + "\n")


def is_first(mark: Path) -> bool:
    """Whether this is asked for the first time."""
    exists = mark.exists()
    mark.touch()
    return not exists


def begin(folder: Path, seed: int, rounds: int, **changes: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    description = {
        "run": f"run {seed}",
        "arguments": {"amount": 0.5, "monitor": "val_acc", "mode": "max"},
        "hyperparameters": {"lr": "0.1"},
        "plan": [f"round_{number:02d}" for number in range(rounds)],
        "seed": str(seed),
        **changes,
    }
    write(folder / "lottery.json", json.dumps(description))


def record(number: int, seed: int) -> dict[str, object]:
    counts = {"round": number, "branch": "ticket", "density": 0.5**number, "kept": 64 >> number, "prunable": 64}
    accuracy = 0.9 - 0.01 * seed
    best = {"best_value": accuracy, "best_step": 10}
    return {**counts, "parameters": 70, "metrics": {"val_acc": accuracy}, **best, "steps": 20, "seconds": 2.0}


def write(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


if __name__ == "__main__":
    main()
