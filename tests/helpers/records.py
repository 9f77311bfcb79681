"""Records without a training."""

from lightning_lottery import RoundRecord


def record(number, branch="ticket", best=None, **fields):
    defaults = {"density": 0.5**number, "kept": 100, "prunable": 200, "parameters": 300}
    return RoundRecord(number, branch, best_value=best, **{**defaults, **fields})
