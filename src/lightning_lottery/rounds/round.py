"""One round: its ticket, its masking, its metric and its state."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from lightning_lottery import report
from lightning_lottery._lightning import RoundsFit
from lightning_lottery.masks import Masks, fingerprint, pack, sharding, unpack
from lightning_lottery.notices import warn
from lightning_lottery.pruning import GradientWatch, find_copies
from lightning_lottery.rounds.checks import check_something_left
from lightning_lottery.rounds.swapped_weights import REWIND_AVERAGE
from lightning_lottery.rules import Settings
from lightning_lottery.storage import Best, RoundRecord, RunFolder, RunState, round_name
from lightning_lottery.tickets import (
    Masking,
    ModuleState,
    Ticket,
    is_finite,
    values_of,
)


@dataclass
class Round:
    """The round that is training.

    Attributes:
        ticket: The ticket that the round started from.
        masking: Keeps the pruned weights at zero.
        masks_hash: Fingerprint of the masks.
        best: The best value of the monitored metric so far.
        progress: Round and density, for the progress bar.
        started: Start time, in seconds of the performance counter.
        masks_seen: The masks that pruning after each of the last epochs would have given.
        is_cut_short: Whether a stop rule has ended the round.
        requires_grad: The ``requires_grad`` flags of all parameters at the start of the epoch.
        gradients: Tracks which parameters have had a gradient; only in a dense round.
        inherited: Metrics that existed at the start of the round, from round 0 at the rewind point.
    """

    ticket: Ticket
    masking: Masking
    masks_hash: str
    best: Best
    progress: str
    started: float
    masks_seen: list[Masks] = field(default_factory=list)
    is_cut_short: bool = False
    requires_grad: dict[str, bool] = field(default_factory=dict)
    gradients: GradientWatch | None = None
    inherited: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def start(
        cls,
        ticket: Ticket,
        masks_hash: str,
        parameters: Mapping[str, nn.Parameter],
        fit: RoundsFit,
        settings: Settings,
    ) -> "Round":
        """Starts a round. Its weights and optimizers must be in place."""
        emptied = [layer for layer, density in ticket.layer_densities().items() if density == 0]
        if emptied:
            warn(
                f"{round_name(ticket.round, ticket.branch)} keeps no weight of {', '.join(map(repr, emptied))}. "
                "The layers after them no longer receive the input. Prune less, or protect them with exclude.",
            )
        masking = Masking(parameters, ticket.masks)
        by_hand = not fit.trainer.lightning_module.automatic_optimization
        masking.watch(fit.trainer.optimizers, elementwise=fit.gradients_stay_masked(), by_hand=by_hand)
        masking.mask_state(fit.trainer.optimizers)
        masking.mask_weights()  # weights that a module omits from its checkpoints are unmasked
        progress = report.progress(ticket, settings.sizes.last_round)
        return cls(
            ticket,
            masking,
            masks_hash,
            Best(settings.mode or "min"),
            progress,
            started=time.perf_counter(),
            gradients=None if masking.is_sparse else GradientWatch(fit.trainer.lightning_module),
            inherited=dict(fit.trainer.callback_metrics),
        )

    def track_gradients(self) -> None:
        """Tracks which parameters have had a gradient, in the dense round."""
        if self.gradients is not None:
            self.gradients.update()

    def leave_out_copies(
        self,
        module: nn.Module,
        parameters: dict[str, nn.Parameter],
        copies: dict[str, str | None],
        fit: RoundsFit,
        folder: RunFolder,
    ) -> list[str] | None:
        """Stops pruning parameters that turn out to be copies of trained weights.

        Args:
            module: The network.
            parameters: The prunable parameters. Copies are removed from it.
            copies: The known copies with their originals. New ones are added to it.
            fit: The Trainer. Process 0 decides.
            folder: The run folder, in which the ticket of the round is updated.

        Returns:
            The names of the parameters that are no longer prunable; ``None`` if no new copies were found.

        Raises:
            TrainingError: Nothing would be left to prune.
        """
        if self.gradients is None or not self.gradients.is_supported:
            return None
        self.gradients.update()
        found = find_copies(self.gradients.without, module, self.ticket.weights)
        found = fit.trainer.strategy.broadcast({n: original for n, original in found.items() if n not in copies})
        names = [name for name in parameters if name in found]
        if not names and not any(found.values()):
            return None
        check_something_left(self.name, names, parameters)
        copies |= found
        for name in names:
            del parameters[name]
        self.ticket = replace(self.ticket, masks={n: m for n, m in self.ticket.masks.items() if n in parameters})
        self.masks_hash, self.masks_seen = fingerprint(self.ticket.masks), []
        folder.write_ticket(folder.ticket_name(self.ticket.round), self.ticket)
        return names

    def release(self) -> None:
        """Removes all hooks from optimizers and parameters. May be called twice."""
        self.masking.release()
        if self.gradients is not None:
            self.gradients.release()

    def observe_metric(self, fit: RoundsFit, monitor: str | None) -> None:
        """Updates the best value of the monitored metric, if this round has logged it."""
        value = fit.trainer.callback_metrics.get(monitor) if monitor is not None else None
        if value is not None and value is not self.inherited.get(str(monitor)):
            self.best.observe(float(value), fit.trainer.global_step)

    def check_zeros(self) -> None:
        """Warns if pruned weights are not zero at the end of the training, and sets them to zero."""
        if not (moved := self.masking.nonzero()):
            return
        name, count = next(iter(moved.items()))
        warn(
            f"At the end of {self.name}, pruned weights were not zero in {', '.join(map(repr, moved))} "
            f"({count} in {name!r}). They are set to zero. Something writes weights in on_train_end, for example "
            f"a callback that averages weights over all rounds. {REWIND_AVERAGE}",
        )
        self.masking.mask_weights()

    def check_finite(self, module: nn.Module, monitor: str | None, metrics: Mapping[str, Tensor]) -> None:
        """Warns if weights, buffers or the monitored metric are NaN or infinite at the end of the round."""
        broken = [n for n, p in module.named_parameters() if not is_finite(p.detach())]
        # Some buffers contain infinity on purpose, such as attention masks.
        broken += [n for n, b in module.named_buffers() if bool(values_of(sharding.local(b)).isnan().any())]
        value = metrics.get(monitor) if monitor is not None else None
        if broken:
            shown = ", ".join(map(repr, broken[:3])) + (f" and {len(broken) - 3} more" if len(broken) > 3 else "")
            warn(
                f"{self.name} has diverged: at its end, {shown} contained NaN or infinity. Its metrics are "
                "meaningless. Lower the learning rate, clip gradients, or prune less. If a layer divides weights "
                "by their norm in its own way, leave them out with exclude.",
            )
        elif value is not None and not math.isfinite(float(value)):
            warn(f"{self.name} ended with {monitor!r} at {float(value)}.")

    @property
    def name(self) -> str:
        """The name of the round in files, folders and loggers."""
        return round_name(self.ticket.round, self.ticket.branch)

    def state(self, folder: RunFolder, module: nn.Module, fit: RoundsFit, has_begun: bool) -> RunState:
        """The state of the round for a checkpoint.

        Args:
            folder: The run folder.
            module: The network.
            fit: The Trainer.
            has_begun: Whether the round is training. Otherwise the network may still belong to another round, and
                resuming restarts the round.
        """
        module_state = ModuleState.of(module)
        module_state.training.update(fit.training_flags())
        moment = fit.moment() if has_begun else {}
        if has_begun and not moment["is_exact"]:  # LightningModule.toggle_optimizer changes flags during a batch
            module_state.requires_grad.update(self.requires_grad)
        return RunState(
            run=folder.description().get("run", ""),
            folder=str(folder.path.absolute()),
            round=self.ticket.round,
            branch=self.ticket.branch,
            masks_hash=self.masks_hash,
            best_value=self.best.value,
            best_step=self.best.step,
            seconds=time.perf_counter() - self.started,
            masks_seen=[{name: pack(mask) for name, mask in masks.items()} for masks in self.masks_seen],
            is_cut_short=self.is_cut_short,
            module=vars(module_state),
            moment=moment,
            without_gradient=[] if self.gradients is None else self.gradients.without,
        )

    def restore(self, state: RunState, module: nn.Module, parameters: Mapping[str, nn.Parameter]) -> None:
        """Restores the state of the round from a checkpoint."""
        self.best.value, self.best.step = state.best_value, state.best_step
        self.started -= state.seconds
        self.masks_seen = [
            {n: unpack(mask, parameters[n].shape).to(parameters[n].device) for n, mask in masks.items()}
            for masks in state.masks_seen
        ]
        self.is_cut_short = state.is_cut_short
        if self.gradients is not None:
            self.gradients = GradientWatch(module, state.without_gradient)

    def record(self, fit: RoundsFit, module: nn.Module, path: str) -> RoundRecord:
        """Makes the record of the round after its training.

        Args:
            fit: The Trainer.
            module: The network.
            path: Path of the ticket file, relative to the run folder.
        """
        ticket, metrics = self.ticket, fit.trainer.callback_metrics
        return RoundRecord(
            round=ticket.round,
            branch=ticket.branch,
            density=ticket.density,
            kept=ticket.kept,
            prunable=ticket.prunable,
            parameters=sum(p.numel() for p in module.parameters()),
            metrics={name: float(value) for name, value in metrics.items() if _is_scalar(value)},
            best_value=self.best.value,
            best_step=self.best.step,
            steps=fit.progress.steps(),
            seconds=time.perf_counter() - self.started,
            masks_hash=self.masks_hash,
            ticket_path=path,
            saved_steps=fit.progress.steps_left() if self.is_cut_short else 0,
            logged_steps=fit.logged_steps(),
            is_cut_short=self.is_cut_short,
        )


def _is_scalar(value: Tensor) -> bool:
    return torch.as_tensor(value).numel() == 1
