"""The report: one HTML page about a run, a study, or several experiments."""

from lightning_lottery.report.page.experiment import Experiment, name_of
from lightning_lottery.report.page.report import Report, can_write_report, report_after_training

__all__ = ["Experiment", "Report", "can_write_report", "name_of", "report_after_training"]
