"""A ticket as a smaller network, and what that gains on this machine.

These functions work on any network and ticket, without a Trainer or a callback.
"""

from lightning_lottery.export.compact import compact
from lightning_lottery.export.measure import Latency, Measurement
from lightning_lottery.export.report import ExportReport

__all__ = ["ExportReport", "Latency", "Measurement", "compact"]
