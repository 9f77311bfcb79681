"""Everything before the first step: checks, preview, the run folder, what makes two runs the same, the start."""

from lightning_lottery.preflight.checks import check_finders, check_resume, check_rounds, check_trainer
from lightning_lottery.preflight.identity import describe_trainer
from lightning_lottery.preflight.locate import find_run
from lightning_lottery.preflight.prepare import FitRequest, Prepared, prepare
from lightning_lottery.preflight.preview import Preview

__all__ = [
    "FitRequest",
    "Prepared",
    "Preview",
    "check_finders",
    "check_resume",
    "check_rounds",
    "check_trainer",
    "describe_trainer",
    "find_run",
    "prepare",
]
