"""Training round after round inside one fit, or one given ticket."""

from lightning_lottery.rounds.held import HeldTicket, mask_weights, rewind_to
from lightning_lottery.rounds.round import Round
from lightning_lottery.rounds.run import Run
from lightning_lottery.rounds.start import begin_run, resume_run

__all__ = ["HeldTicket", "Round", "Run", "begin_run", "mask_weights", "resume_run", "rewind_to"]
