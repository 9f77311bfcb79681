"""Scripts in separate processes, and short fits on the command line."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
# Makes a fit on the command line one of two batches, whatever its limits are.
TWO_BATCHES = (
    *("--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1", "--trainer.max_epochs=1"),
    *("--trainer.max_steps=-1", "--trainer.check_val_every_n_epoch=1", "--trainer.val_check_interval=1.0"),
    *("--trainer.enable_progress_bar=false", "--trainer.num_sanity_val_steps=0"),
)


def run_script(name: str, *arguments: object, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a module of tests.helpers as a script."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "COV"))}
    paths = filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    return subprocess.run(
        [sys.executable, "-m", f"tests.helpers.{name}", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**environment, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)},
        cwd=folder,
        timeout=300,
    )


def short_fit(callback: dict[str, Any]) -> list[str]:
    """Writes a configuration of five steps with a callback, and returns the command line that trains it."""
    trainer = {"max_epochs": 1, "limit_train_batches": 5, "enable_progress_bar": False, "logger": False}
    config = {
        "trainer": {**trainer, "accelerator": "cpu", "callbacks": [callback]},
        "model": {"class_path": "Classifier", "init_args": {"network": {"class_path": "LeNet300100"}}},
        "data": {"class_path": "MNIST5000"},
    }
    Path("fit.yaml").write_text(yaml.safe_dump(config))
    return ["fit", "--config", "fit.yaml"]
