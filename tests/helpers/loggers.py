"""Loggers for tests."""

from lightning.pytorch.loggers import Logger


class Strict(Logger):
    """Refuses falling steps, like online services."""

    def __init__(self):
        super().__init__()
        self.steps, self.tags = [0], set()

    name, version = "strict", 0

    def log_metrics(self, metrics, step=None):
        assert step >= self.steps[-1], f"step {step} after {self.steps[-1]}"
        self.steps.append(step)
        self.tags |= set(metrics)

    def log_hyperparams(self, *_):
        pass
