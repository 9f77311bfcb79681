"""Scripts in separate processes."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


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
