"""Training round after round inside one fit."""

from lightning_lottery.rounds.run import Run
from lightning_lottery.rounds.start import begin_run, resume_run

__all__ = ["Run", "begin_run", "resume_run"]
