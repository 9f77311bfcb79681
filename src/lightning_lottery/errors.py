"""The exceptions of this package.

LotteryError
├── FolderError          a file of a run cannot be written; finished rounds stay on disk
├── ConfigurationError   an argument, the model or the Trainer cannot work; nothing was trained
├── ExportError          an exported network would differ from the original; nothing is written
├── TicketError          a ticket file is damaged, or a ticket does not fit the model
└── TrainingError        training cannot continue; finished rounds stay on disk
"""


class LotteryError(Exception):
    """Base of all errors of this package."""


class ConfigurationError(LotteryError, ValueError):
    """An argument is invalid, or the model or Trainer is not supported. A fit raises it before training starts."""


class ExportError(LotteryError, ValueError):
    """An exported network does not agree with the network that it was made from. Nothing is written."""


class TicketError(LotteryError, ValueError):
    """A file is damaged or not a ticket, or a ticket does not fit the model."""


class TrainingError(LotteryError, RuntimeError):
    """Training cannot continue. Every finished round stays on disk."""


class FolderError(LotteryError, OSError):
    """A file of a run cannot be written. Every finished round stays on disk."""
