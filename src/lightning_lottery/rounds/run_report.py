"""What people see of a run: figures in loggers, and the report."""

from __future__ import annotations

from functools import partial

from lightning_lottery import report
from lightning_lottery._lightning import RoundsFit
from lightning_lottery.analysis import verdict_of
from lightning_lottery.rules import Settings
from lightning_lottery.storage import Records, Replicate, RoundRecord, RunDescription, RunFolder


class RunReport:
    """Shows the results of a run: figures in loggers after every round, and the report at its end.

    Args:
        settings: The arguments.
        fit: The Trainer, whose loggers receive the figures.
        folder: The run folder.
        records: The records, to which finished rounds are added.
    """

    def __init__(self, settings: Settings, fit: RoundsFit, folder: RunFolder, records: Records) -> None:
        self._settings, self._fit, self._folder, self._records = settings, fit, folder, records

    def log_accuracy(self, record: RoundRecord) -> None:
        """Sends the figure of the metric against density to the loggers, after a round."""
        if self._settings.monitor not in record.metrics or record.id.is_search or not report.can_draw():
            return
        # Controls come last but have smaller round numbers, and the steps of a figure must rise.
        number = len(self._records) - 1
        self._fit.loggers.draw("lottery/accuracy_against_density", lambda: self._accuracy().figure, number)

    def _accuracy(self) -> report.Drawing:
        description = RunDescription(arguments=self._settings.described())
        return report.accuracy(verdict_of({0: Replicate(self._folder.path, description, self._records)}))

    def lay_out(self) -> None:
        """Tells TensorBoard what to draw side by side. Call it when one round has finished."""
        first = next(iter(self._records))
        logged = report.scalars(first, self._settings.monitor, {}, cost=1.0)
        self._fit.loggers.lay_out(list(first.metrics), [name.partition("/")[2] for name in logged])

    def write(self) -> None:
        """Writes the report into the run folder, and sends its figures and numbers to the loggers."""
        folder = self._folder
        if not folder.is_writer or folder.is_temporary or not self._records:
            return
        report.report_after_training(lambda: report.Experiment.at(folder.path), folder.report, self._log)

    def _log(self, written: report.Report) -> None:
        for drawing in written.pictures:
            if drawing.name != "accuracy":  # it is logged after every round
                self._fit.loggers.draw(f"lottery/{drawing.name}", partial(getattr, drawing, "figure"), 0)
        experiment = written.bodies[0].experiment
        if numbers := experiment.numbers():
            self._fit.loggers.log_verdict(experiment.settings(), numbers)
