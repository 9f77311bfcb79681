"""Training round after round inside one fit."""

from lightning_lottery.rounds.run import Run

__all__ = ["Run"]
