"""Five seeds of LeNet-300-100 by ``lightning-lottery study``, against one by ``lightning-lottery fit``.

Run: python benchmarks/study.py [--repeats 3] [--seeds 5] [--epochs 8]

Both take turns; the ratio is computed within a turn. Both durations include the start of the processes.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

EXAMPLE = Path(__file__).parents[1] / "examples" / "mnist.yaml"


def seconds(*words: str) -> float:
    """Runs a command of this package in an empty folder, and returns its duration."""
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        command = [sys.executable, "-m", "lightning_lottery", *words]
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return time.perf_counter() - begin


def main() -> None:
    """Prints one line per turn, and the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=8)
    options = parser.parse_args()
    config, epochs = ["--config", str(EXAMPLE)], ["--trainer.max_epochs", str(options.epochs)]
    turns = []
    for turn in range(options.repeats):
        one = seconds("fit", *config, *epochs, "--trainer.enable_progress_bar", "false")
        all_seeds = seconds("study", *config, "--seeds", str(options.seeds), "--", *epochs)
        turns.append((one, all_seeds))
        print(
            f"turn {turn}: one fit {one:.1f} s, {options.seeds} seeds {all_seeds:.1f} s, {all_seeds / one:.2f} x",
            flush=True,
        )
    ones, alls = zip(*turns, strict=True)
    ratio = median(b / a for a, b in turns)
    print(f"median: one fit {median(ones):.1f} s, {options.seeds} seeds {median(alls):.1f} s, {ratio:.2f} x")


if __name__ == "__main__":
    main()
