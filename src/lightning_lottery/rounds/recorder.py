"""Records finished rounds: on disk, in loggers and on the screen."""

from collections.abc import Mapping

from lightning_lottery import report
from lightning_lottery._lightning import RoundsFit
from lightning_lottery.errors import TrainingError
from lightning_lottery.rounds.run_report import RunReport
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
        self._report = RunReport(settings, fit, folder, records)

    def add(self, record: RoundRecord) -> None:
        """Records a round after its training. The record is on disk before anything else happens.

        Raises:
            TrainingError: The monitored metric was never logged.
        """
        monitor = self._settings.monitor
        self._records.append(record)
        self._folder.write_records(self._records)
        self._log_scalars(record)
        self._report.log_accuracy(record)
        if len(self._records) == 1:
            self._report.lay_out()
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
            self._report.lay_out()
            self._report.log_accuracy(self._records[-1])

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

    def close(self) -> None:
        """Prints what stop rules have saved, and writes the report."""
        if any(record.saved_steps for record in self._records):
            self.say(f"Stop rules saved {_percent(*self._records)} of the steps of the trained rounds.")
        self._report.write()

    def say(self, text: str) -> None:
        """Prints a line if ``verbose`` is set."""
        if self._settings.verbose:
            self._fit.trainer.print(text, flush=True)


def _percent(*records: RoundRecord) -> str:
    saved = sum(record.saved_steps for record in records)
    return f"{100 * saved / sum(record.steps + record.saved_steps for record in records):.0f} %"
