"""One round: a ticket, what keeps its pruned weights at zero, and what becomes of it."""

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
from lightning_lottery.preflight import Settings
from lightning_lottery.pruning import GradientWatch, followers_among
from lightning_lottery.rounds.guard import check_left
from lightning_lottery.rounds.swapped_weights import REWIND_AVERAGE
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
        ticket: What it started from.
        masking: Keeps the pruned weights at zero.
        masks_hash: Fingerprint of the masks.
        best: The best value of the monitored metric so far.
        progress: Round and density, for the progress bar.
        started: When it started, in seconds of the performance counter.
        masks_seen: What its pruning would have given after the last epochs.
        is_cut_short: Whether a stop rule has ended it.
        requires_grad: The flags of all parameters when the epoch began.
        has_warned: Whether it was said that a validation measures other weights than the ticket's.
        gradients: Which parameters have had a gradient; only in a dense round.
        inherited: The metrics that were there when it started, of round 0 at the point where it begins.
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
        """Starts a round whose weights and optimizers are in place."""
        emptied = [layer for layer, density in ticket.layer_densities().items() if density == 0]
        if emptied:
            warn(
                f"{round_name(ticket.round, ticket.branch)} keeps no weight of {', '.join(map(repr, emptied))}: "
                "what comes after these layers no longer sees the input. Prune less, or protect them by exclude.",
            )
        masking = Masking(parameters, ticket.masks)
        by_hand = not fit.trainer.lightning_module.automatic_optimization
        masking.watch(fit.trainer.optimizers, elementwise=fit.gradients_are_ours(), by_hand=by_hand)
        masking.mask_state(fit.trainer.optimizers)
        masking.mask_weights()  # those that a module leaves out of its checkpoints come unmasked
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

    def look_at_gradients(self) -> None:
        """Notes which parameters have had a gradient, while the dense round trains."""
        if self.gradients is not None:
            self.gradients.look()

    def leave_out_followers(
        self,
        module: nn.Module,
        parameters: dict[str, nn.Parameter],
        copies: dict[str, str | None],
        fit: RoundsFit,
        folder: RunFolder,
    ) -> list[str] | None:
        """Leaves out of a dense round what turns out to follow trained weights.

        Args:
            module: The network.
            parameters: The prunable parameters; those that follow are taken out.
            copies: The copies that are known, with their originals; those that are found are put in.
            fit: The Trainer, whose first process decides.
            folder: The run folder, in which the ticket of the round is written anew.

        Returns:
            The names of the parameters that are not prunable any more; ``None`` if nothing new was found.

        Raises:
            TrainingError: Nothing would be left to prune.
        """
        if self.gradients is None or not self.gradients.is_possible:
            return None
        self.gradients.look()
        found = followers_among(self.gradients.without, module, self.ticket.weights)
        found = fit.trainer.strategy.broadcast({n: original for n, original in found.items() if n not in copies})
        names = [name for name in parameters if name in found]
        if not names and not any(found.values()):
            return None
        check_left(self.name, names, parameters)
        copies |= found
        for name in names:
            del parameters[name]
        self.ticket = replace(self.ticket, masks={n: m for n, m in self.ticket.masks.items() if n in parameters})
        self.masks_hash, self.masks_seen = fingerprint(self.ticket.masks), []
        folder.write_ticket(folder.ticket_name(self.ticket.round), self.ticket)
        return names

    def release(self) -> None:
        """Takes all hooks off optimizers and parameters. May be called twice."""
        self.masking.release()
        if self.gradients is not None:
            self.gradients.release()

    def observe(self, fit: RoundsFit, monitor: str | None) -> None:
        """Looks at the monitored metric, if the round itself has logged it."""
        value = fit.trainer.callback_metrics.get(monitor) if monitor is not None else None
        if value is not None and value is not self.inherited.get(str(monitor)):
            self.best.observe(float(value), fit.trainer.global_step)

    def check_zeros(self) -> None:
        """Warns if pruned weights were not zero when the training had ended, and sets them to zero."""
        if not (moved := self.masking.moved()):
            return
        name, count = next(iter(moved.items()))
        warn(
            f"When {self.name} had ended, pruned weights were not zero in {', '.join(map(repr, moved))} "
            f"({count} in {name!r}); they are set to zero. Something writes weights in on_train_end, such as a "
            f"callback that averages them and goes on with the average of the rounds before. {REWIND_AVERAGE}",
        )
        self.masking.mask_weights()

    def check_finite(self, module: nn.Module, monitor: str | None, metrics: Mapping[str, Tensor]) -> None:
        """Warns if the round has ended with NaN in weights, buffers or the monitored metric, or infinity."""
        broken = [n for n, p in module.named_parameters() if not is_finite(p.detach())]
        # Some buffers hold infinity on purpose, as masks of attention do.
        broken += [n for n, b in module.named_buffers() if bool(values_of(sharding.local(b)).isnan().any())]
        value = metrics.get(monitor) if monitor is not None else None
        if broken:
            shown = ", ".join(map(repr, broken[:3])) + (f" and {len(broken) - 3} more" if len(broken) > 3 else "")
            warn(
                f"{self.name} has diverged: when it ended, {shown} held NaN or infinity. Its metrics are of a "
                "network that computes nothing. Lower the learning rate, clip gradients, or prune less. If "
                "a layer divides weights by their norm in a way of its own, leave them out by exclude.",
            )
        elif value is not None and not math.isfinite(float(value)):
            warn(f"{self.name} ended with {monitor!r} at {float(value)}.")

    @property
    def name(self) -> str:
        """Its name in files, folders and loggers."""
        return round_name(self.ticket.round, self.ticket.branch)

    def state(self, folder: RunFolder, module: nn.Module, fit: RoundsFit, has_begun: bool) -> RunState:
        """What a checkpoint is to hold of the round.

        Args:
            folder: The run folder.
            module: The network.
            fit: The Trainer.
            has_begun: Whether it trains; else weights and what is around them may be of another round, and from
                here a round can only begin.
        """
        module_state = ModuleState.of(module)
        module_state.training.update(fit.training_flags())
        moment = fit.moment() if has_begun else {}
        if has_begun and not moment["is_exact"]:  # LightningModule.toggle_optimizer changes flags within a batch
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

    def resume(self, state: RunState, module: nn.Module, parameters: Mapping[str, nn.Parameter]) -> None:
        """Takes over what a checkpoint holds of the round."""
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
        """The record of the round, when it has trained.

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
            ticket=path,
            saved_steps=fit.progress.steps_left() if self.is_cut_short else 0,
            logged_steps=fit.logged_steps(),
            is_cut_short=self.is_cut_short,
        )


def _is_scalar(value: Tensor) -> bool:
    return torch.as_tensor(value).numel() == 1
