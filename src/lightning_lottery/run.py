"""One run: round after round on one Trainer, then the controls."""

import hashlib
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from lightning_lottery import masks as mask_arithmetic
from lightning_lottery import report
from lightning_lottery._lightning import FinalRound, RoundsFit
from lightning_lottery.errors import TrainingError
from lightning_lottery.masking import Masking
from lightning_lottery.provenance import provenance
from lightning_lottery.records import Best, Records, RoundRecord, RunFolder, round_name
from lightning_lottery.rewind import ModuleState
from lightning_lottery.settings import Settings
from lightning_lottery.ticket import Ticket, starting_values


def dense_ticket(module: nn.Module, parameters: Mapping[str, nn.Parameter]) -> Ticket:
    """The ticket of round 0: every weight survives, at its present value."""
    masks = {name: torch.ones_like(parameter, dtype=torch.bool) for name, parameter in parameters.items()}
    return Ticket(masks, starting_values(module), provenance=provenance(module, torch.initial_seed()))


@dataclass
class Round:
    """The round that is training.

    Attributes:
        ticket: What it started from.
        masking: Keeps the pruned weights at zero.
        best: The best value of the monitored metric so far.
        progress: Round and density, for the progress bar.
        started: When it started, in seconds of the performance counter.
    """

    ticket: Ticket
    masking: Masking
    best: Best
    progress: str
    started: float

    @property
    def name(self) -> str:
        """Its name in files, folders and loggers."""
        return round_name(self.ticket.round, self.ticket.branch)


@dataclass(frozen=True)
class LastTicket:
    """Everything after the training of the last ticket, to come back to after the controls.

    Attributes:
        weights: Its trained weights and persistent buffers.
        state: The rest of the network.
        trainer: What the Trainer knew of it.
    """

    weights: dict[str, Tensor]
    state: ModuleState
    trainer: FinalRound


class Run:
    """Everything between the first round and the last.

    Args:
        settings: The arguments.
        fit: The Trainer, made to train rounds.
        module: The LightningModule, at its starting weights.
        parameters: The prunable parameters by name.
        folder: The run folder, free to be written.
        records: Takes the record of every finished round.
    """

    def __init__(
        self,
        settings: Settings,
        fit: RoundsFit,
        module: LightningModule,
        parameters: Mapping[str, nn.Parameter],
        folder: RunFolder,
        records: Records,
    ) -> None:
        self._settings, self._fit, self._module = settings, fit, module
        self._parameters, self._folder, self._records = parameters, folder, records
        self._counts = settings.sizes.counts(sum(p.numel() for p in parameters.values()))
        self._last: LastTicket | None = None
        fit.begin()
        self._state = ModuleState(module)
        self._dense = dense_ticket(module, parameters)
        folder.clear()
        folder.begin(self._description(), self._dense)
        self._tickets = self._prepare_tickets()
        self.round = self._enter(next(self._tickets))

    def observe(self) -> None:
        """Looks at the monitored metric."""
        metrics, monitor = self._fit.trainer.callback_metrics, self._settings.monitor
        if monitor is not None and monitor in metrics:
            self.round.best.observe(float(metrics[monitor]), self._fit.trainer.global_step)

    def advance(self) -> bool:
        """Ends the round that has trained and prepares the next one.

        Returns:
            Whether there is a next one; it then stands ready.

        Raises:
            TrainingError: Weights are NaN, or the monitored metric was never logged.
        """
        self._fit.stop_on_sigterm()
        ticket = self._next_ticket()
        self.close()
        if ticket is None:
            self._finish()
            return False
        self._state.restore(self._module)
        ticket.apply(self._module)
        self._fit.rewind(self._settings.same_data_order)
        self.round = self._enter(ticket)
        return True

    def _next_ticket(self) -> Ticket | None:
        """Records the round that has trained, and prunes; ``None`` if no round is to follow."""
        fit = self._fit
        self.observe()
        if fit.trainer.global_step == 0:
            if fit.has_seen_batches():
                raise TrainingError(
                    f"{self.round.name} has seen batches, but Lightning has counted no step of an optimizer. In "
                    "manual optimization, step the optimizers that self.optimizers() gives."
                )
            self._say("The round has trained no step, so nothing is pruned.")
            return None
        if fit.time_is_up() and not fit.is_whole():
            self._say(f"max_time is spent in the middle of {self.round.name}, which leaves no record.")
            return None
        self._record()
        if fit.time_is_up():
            self._say("max_time is spent: no further round.")
            return None
        return next(self._tickets, None)

    def close(self, status: str = "success") -> None:
        """Closes the round that is training: its loggers and its hooks. May be called twice."""
        self._fit.loggers.leave(status)
        self.round.masking.release()

    def _prepare_tickets(self) -> Iterator[Ticket]:
        """The tickets of all rounds, then those of the controls, each made when the one before has trained."""
        ticket = self._dense
        yield ticket
        for number in range(1, self._settings.sizes.last_round + 1):
            remove = self._counts[number - 1] - self._counts[number]
            masks = mask_arithmetic.prune_smallest(self._parameters, ticket.masks, remove, magnitude=True)
            ticket = replace(self._dense, masks=masks, round=number)
            yield ticket
        for number, control in self._settings.controlled:
            if self._last is None:
                weights, state = starting_values(self._module), ModuleState(self._module)
                self._last = LastTicket(weights, state, self._fit.keep_final())
            original = Ticket.load(self._folder.ticket_path(number)).to(self._parameters)
            seed = _control_seed(self._dense.provenance["seed"], control.branch, number)
            made = control.ticket(original, self._dense, self._module, seed)
            yield replace(made, round=number, branch=control.branch)

    def _enter(self, ticket: Ticket) -> Round:
        """Starts a round whose weights are in place."""
        emptied = [name for name, density in ticket.layer_densities().items() if density == 0]
        if emptied:
            warnings.warn(
                f"{round_name(ticket.round, ticket.branch)} keeps no weight of {', '.join(map(repr, emptied))}: "
                "what comes after these layers no longer sees the input. Prune less, or protect them by exclude.",
                stacklevel=2,
            )
        ticket.save(self._folder.ticket_path(ticket.round, ticket.branch))
        masking = Masking(self._parameters, ticket.masks)
        masking.watch(self._fit.trainer.optimizers, elementwise=self._fit.gradients_are_ours())
        progress = report.progress(ticket, self._settings.sizes.last_round)
        started = Round(ticket, masking, Best(self._settings.mode or "min"), progress, time.perf_counter())
        self._fit.enter_round(started.name)
        return started

    def _record(self) -> None:
        """Writes down the round that has trained."""
        ticket, best, monitor = self.round.ticket, self.round.best, self._settings.monitor
        metrics = self._fit.trainer.callback_metrics
        record = RoundRecord(
            round=ticket.round,
            branch=ticket.branch,
            density=ticket.density,
            kept=ticket.kept,
            prunable=ticket.prunable,
            parameters=sum(p.numel() for p in self._module.parameters()),
            metrics={name: float(value) for name, value in metrics.items() if _is_scalar(value)},
            best_value=best.value,
            best_step=best.step,
            steps=self._fit.trainer.global_step,
            seconds=time.perf_counter() - self.round.started,
            masks_hash=mask_arithmetic.fingerprint(ticket.masks),
            ticket=f"tickets/{self._folder.ticket_path(ticket.round, ticket.branch).name}",
        )
        self._records.append(record)
        self._folder.write_records(self._records)
        self._log(record)
        self._say(report.line(record, self._settings.sizes.last_round, monitor))
        if monitor is not None and monitor not in record.metrics:
            logged = ", ".join(map(repr, record.metrics)) or "none"
            raise TrainingError(
                f"monitor={monitor!r} was never logged in {self.round.name}. The metrics that were: {logged}. "
                "Take one of them, or log that one with self.log(...) in the LightningModule."
            )

    def _log(self, record: RoundRecord) -> None:
        monitor, densities = self._settings.monitor, self.round.ticket.layer_densities()
        self._fit.loggers.log(report.scalars(record, monitor, densities), record.round)
        if monitor in record.metrics and report.can_draw():
            self._fit.loggers.draw("lottery/accuracy_against_density", self._draw, record.round)

    def _draw(self) -> Any:
        metric = str(self._settings.monitor)
        return report.figure(report.curves(self._records, metric), metric)

    def _finish(self) -> None:
        """Leaves the module with the last ticket, trained, also after controls."""
        if self._last is not None:
            self._last.state.restore(self._module)
            Ticket(masks={}, weights=self._last.weights).apply(self._module)
            self._fit.restore_final(self._last.trainer)
        if self._settings.monitor is not None and len(self._records) and report.can_draw():
            report.save_figure(self._draw(), self._folder.path / "report.png")

    def _description(self) -> dict[str, Any]:
        return {
            "arguments": self._settings.described(),
            "counts": self._counts,
            "prunable": {name: list(parameter.shape) for name, parameter in self._parameters.items()},
            **self._dense.provenance,
        }

    def _say(self, text: str) -> None:
        if self._settings.verbose:
            print(text, flush=True)


def _is_scalar(value: Tensor) -> bool:
    return torch.as_tensor(value).numel() == 1


def _control_seed(seed: str, branch: str, number: int) -> int:
    """A seed of 48 bits that differs between runs, controls and rounds."""
    digest = hashlib.sha256(f"{seed}/{branch}/{number}".encode()).digest()
    return int.from_bytes(digest[:6], "big")
