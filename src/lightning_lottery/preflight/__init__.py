"""Everything before the first step: checks, preview, choosing the run folder, what makes two runs the same."""

from lightning_lottery.preflight.checks import (
    check_finders,
    check_module,
    check_resume,
    check_start,
    check_trainer,
)
from lightning_lottery.preflight.identity import check_same, describe_run, describe_trainer
from lightning_lottery.preflight.locate import choose_folder, find_run, folder_of, lock_folder
from lightning_lottery.preflight.preview import Preview

__all__ = [
    "Preview",
    "check_finders",
    "check_module",
    "check_resume",
    "check_same",
    "check_start",
    "check_trainer",
    "choose_folder",
    "describe_run",
    "describe_trainer",
    "find_run",
    "folder_of",
    "lock_folder",
]
