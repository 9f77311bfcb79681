"""The runs of a study as files, without any training."""

import json
from pathlib import Path

from lightning_lottery import Study
from tests.helpers.short_run import begin, write

ACCURACIES = {
    "ticket": [[0.90, 0.91, 0.89, 0.90], [0.93, 0.94, 0.93, 0.93], [0.89, 0.92, 0.90, 0.89]],
    "shuffle_mask": [None, [0.80, 0.83, 0.81, 0.80], [0.70, 0.75, 0.69, 0.71]],
}


def write_runs(change=lambda seed, records: records, tests=None, **arguments):
    """Four seeds of a dense round, two tickets and two controls."""
    for seed in range(4):
        records = []
        for branch, rounds in ACCURACIES.items():
            for number, values in enumerate(rounds):
                if values is not None:
                    records.append(record(number, branch, values[seed]))
        arguments = {"monitor": "val_acc", "mode": "max", **arguments}
        folder = Path("exp") / f"seed_{seed}"
        begin(folder, seed, 3, arguments=arguments)
        write(folder / "rounds.jsonl", "".join(json.dumps(line) + "\n" for line in change(seed, records)))
        if tests is not None:
            lines = [tests(seed, line["round"], line["branch"]) for line in records]
            write(folder / "tests.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    return Study.read("exp")


def record(number, branch, accuracy):
    counts = {"round": number, "branch": branch, "density": 0.5**number, "kept": 64 >> number, "prunable": 64}
    metrics = {"val_acc": accuracy - 0.01, "val_loss": 1 - accuracy}
    curve = [[10, accuracy - 0.1], [20, accuracy], [30, accuracy - 0.01]]
    best = {"best_value": accuracy, "best_step": 20, "curve": curve}
    return {**counts, "parameters": 70, "metrics": metrics, **best, "steps": 30, "last_step": 30}
