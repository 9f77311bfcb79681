"""Runs of a paper's experiment, without any training."""

from dataclasses import replace
from pathlib import Path

from lightning_lottery import Records
from lightning_lottery.storage import Replicate, RoundTest, RunDescription
from lightning_lottery.vision import CifarResNet
from tests.helpers.records import record

DESCRIPTION = RunDescription(
    arguments={
        "criterion": "Magnitude()",
        "scope": "Global(min_density=0.0, keep_alive=True)",
        "pattern": "Unstructured()",
        "rewind": "ToEpoch(epoch=12, optimizer='restore')",
        "stop": [],
        "prune_at_init": False,
        "monitor": "val_acc",
        "mode": "max",
    },
    trainer={"max_epochs": 182},
    prunable={name: list(p.shape) for name, p in CifarResNet(20).named_parameters() if p.dim() > 1},
    counts=[270_896, 138_699, 56_811],
    input_shape=[3, 32, 32],
    environment={"data": "CIFAR10"},
    provenance={"seed": "0"},
)
DENSITIES = (1.0, 0.512, 0.20972)
ACCURACIES = {0: (0.92, 0.93, 0.90), 1: (0.93, 0.94, 0.91), 2: (0.91, 0.92, 0.92)}  # by seed


def paper_runs(tests=None, arguments=(), test_metric="test_acc", **changes):
    """Three seeds of ResNet-20 with rewinding to epoch 12, as Renda et al. 2020 trained it.

    Args:
        tests: Values of ``test_acc`` of the tickets, by seed; none by default.
        arguments: Arguments of the callback that differ.
        test_metric: The name of the test metric.
        **changes: Other parts of the description that differ.
    """
    description = replace(DESCRIPTION, **changes)
    description = replace(description, arguments={**description.arguments, **dict(arguments)})
    runs = {}
    for seed, values in ACCURACIES.items():
        records = [
            record(n, best=value, density=DENSITIES[n], metrics={"val_acc": value}, steps=640)
            for n, value in enumerate(values)
        ]
        measured = [
            RoundTest(n, "ticket", {test_metric: value}) for n, value in enumerate((tests or {}).get(seed, ()))
        ]
        runs[seed] = Replicate(
            Path("nowhere"), description, Records(records), {test.id: test for test in measured}
        )
    return runs
