"""Records finished rounds: on disk, in loggers, in figures and on the screen."""

from collections.abc import Mapping
from typing import Any

from lightning_lottery import report
from lightning_lottery._lightning import RoundsFit
from lightning_lottery.errors import TrainingError
from lightning_lottery.rules import Settings
from lightning_lottery.storage import Cost, Records, RoundRecord, RunFolder


class Recorder:
    """Keeps the records of a run. Logs, figures and printed lines are derived from them.

    Args:
        settings: The arguments.
        fit: The Trainer, whose loggers receive the summary.
        folder: The run folder.
        records: Takes the record of every finished round.
        sizes: The number of weights in every parameter, by name.
    """

    def __init__(
        self, settings: Settings, fit: RoundsFit, folder: RunFolder, records: Records, sizes: Mapping[str, int]
    ) -> None:
        self._settings, self._fit, self._folder, self._records = settings, fit, folder, records
        self._sizes = sizes

    def add(self, record: RoundRecord) -> None:
        """Records a round after its training. The record is on disk before anything else happens.

        Raises:
            TrainingError: The monitored metric was never logged.
        """
        monitor = self._settings.monitor
        self._records.append(record)
        self._folder.write_records(self._records)
        self._log_scalars(record)
        self._log_figure(record)
        self.say(report.line(record, self._settings.sizes.last_round, monitor))
        if record.saved_steps:
            steps = record.steps + record.saved_steps
            self.say(f"A stop rule saved {record.saved_steps} of {steps} steps ({_percent(record)}).")
        # A search round may be too short for a validation, and its metrics decide nothing.
        if monitor is not None and monitor not in record.metrics and not record.id.is_search:
            logged = ", ".join(map(repr, record.metrics)) or "none"
            raise TrainingError(
                f"monitor={monitor!r} was never logged in {record.id}. The logged "
                f"metrics are: {logged}. Use one of them, or log this one with self.log(...) in the "
                "LightningModule."
            )

    def log_again(self) -> None:
        """Logs the finished rounds of a resumed run again, since its loggers may be new."""
        for record in self._records:
            self._log_scalars(record)
        if self._records:
            self._log_figure(self._records[-1])

    def _log_scalars(self, record: RoundRecord) -> None:
        cost = None if self._settings.prune_at_init else self._cost_up_to(record)
        scalars = report.scalars(record, self._settings.monitor, self._layer_densities(record), cost)
        self._fit.loggers.log(scalars, record.round)

    def _cost_up_to(self, last: RoundRecord) -> float:
        """What all trainings up to this one have cost together, in trainings of round 0."""
        records = list(self._records)
        return Cost.of(records[: records.index(last) + 1]).trainings

    def _layer_densities(self, record: RoundRecord) -> dict[str, float]:
        if not record.kept_by_layer:  # written by an older version
            return self._folder.read_ticket(record.ticket_path).layer_densities()
        return {name: kept / self._sizes[name] for name, kept in record.kept_by_layer.items()}

    def _log_figure(self, record: RoundRecord) -> None:
        if self._settings.monitor in record.metrics and not record.id.is_search and report.can_draw():
            # Controls come last but have smaller round numbers, and the steps of a figure must rise.
            number = len(self._records) - 1
            self._fit.loggers.draw("lottery/accuracy_against_density", lambda: self._draw(is_wide=False), number)

    def _draw(self, is_wide: bool) -> Any:
        metric = str(self._settings.monitor)
        start = next((record.density for record in self._records if record.round == 0), 1.0)
        by_round = report.has_equal_densities(self._records)
        points = report.curves(self._records, metric, by_round)
        title = report.cost_line(self._records.cost()) if is_wide and not self._settings.prune_at_init else None
        return report.figure(points, metric, title=title, is_wide=is_wide, start=start, by_round=by_round)

    def close(self) -> None:
        """Draws the figure into the run folder, and prints what stop rules have saved."""
        if any(record.saved_steps for record in self._records):
            self.say(f"Stop rules saved {_percent(*self._records)} of the steps of the trained rounds.")
        if self._folder.is_writer and self._settings.monitor is not None and self._records and report.can_draw():
            report.save_figure(self._draw(is_wide=True), self._folder.figure)

    def say(self, text: str) -> None:
        """Prints a line if ``verbose`` is set."""
        if self._settings.verbose:
            self._fit.trainer.print(text, flush=True)


def _percent(*records: RoundRecord) -> str:
    saved = sum(record.saved_steps for record in records)
    return f"{100 * saved / sum(record.steps + record.saved_steps for record in records):.0f} %"
