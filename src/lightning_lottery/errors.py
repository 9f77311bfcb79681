"""What can go wrong, as exceptions.

LotteryError
├── FolderError          a file that cannot be written; every finished round stays on disk
├── ConfigurationError   an argument, a model or a Trainer that cannot work; no training has begun
├── TicketError          a ticket file that is damaged, or a ticket that does not fit the model
└── TrainingError        a training that cannot go on; every finished round stays on disk
"""


class LotteryError(Exception):
    """Base of all errors of this package."""


class ConfigurationError(LotteryError, ValueError):
    """An argument, a model or a Trainer that cannot work; in a fit it is raised before any training."""


class TicketError(LotteryError, ValueError):
    """A ticket file that is damaged or foreign, or a ticket that does not fit the model."""


class TrainingError(LotteryError, RuntimeError):
    """A training that cannot go on. Every finished round stays on disk."""


class FolderError(LotteryError, OSError):
    """A file of a run that cannot be written. Every finished round stays on disk."""
