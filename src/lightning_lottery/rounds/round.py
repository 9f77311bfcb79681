"""One round: its masks, its masking, its metric and its state."""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from lightning_lottery import report
from lightning_lottery._lightning import RoundsFit
from lightning_lottery.errors import TrainingError
from lightning_lottery.masks import Masks, arithmetic, count, fingerprint, pack, unpack
from lightning_lottery.pruning import GradientWatch, find_copies
from lightning_lottery.rounds.checks import warn_if_emptied
from lightning_lottery.rounds.monitored import MonitoredMetric
from lightning_lottery.rounds.swapped_weights import ValidationWatch
from lightning_lottery.rules import Settings
from lightning_lottery.storage import BatchFlops, KeptTicket, RoundRecord, RunFolder, RunState
from lightning_lottery.tickets import Masking, ModuleState, RoundId, Ticket, masked_parameters


@dataclass
class Round:
    """The round that is training.

    Attributes:
        id: Which round it is.
        masks: The masks, on the devices of the network.
        following: The names of masked parameters that density does not count.
        start: The ticket that the round started from, in the run folder.
        masking: Keeps the pruned weights at zero.
        validation: Detects weights that are swapped in for a validation.
        masks_hash: Fingerprint of the masks.
        metric: The monitored metric so far.
        progress: Round and density, for the progress bar.
        started: Start time, in seconds of the performance counter.
        gradients: Tracks which parameters have had a gradient; only in round 0.
        masks_seen: The masks that pruning after each of the last epochs would have given, packed to bits.
        is_cut_short: Whether a stop rule has ended the round.
        requires_grad: The ``requires_grad`` flags of all parameters at the start of the epoch.
    """

    id: RoundId
    masks: Masks
    following: Sequence[str]
    start: KeptTicket
    masking: Masking
    validation: ValidationWatch
    masks_hash: str
    metric: MonitoredMetric
    progress: str
    started: float
    gradients: GradientWatch | None
    masks_seen: list[dict[str, Tensor]] = field(default_factory=list)
    is_cut_short: bool = False
    requires_grad: dict[str, bool] = field(default_factory=dict)

    @classmethod
    def begin(
        cls,
        ticket: Ticket,
        module: LightningModule,
        fit: RoundsFit,
        settings: Settings,
        folder: RunFolder,
    ) -> "Round":
        """Begins a round, and writes its ticket. Its weights and optimizers must be in place.

        Args:
            ticket: The ticket, on the CPU unless it is sharded.
            module: The LightningModule.
            fit: The Trainer.
            settings: The arguments.
            folder: The run folder.

        Raises:
            TrainingError: The masks differ between the processes.
        """
        masks_hash = _common_hash(ticket, fit)
        start = KeptTicket(folder, folder.ticket_name(ticket.id), module, ticket)
        parameters, masks = masked_parameters(ticket, module)
        warn_if_emptied(ticket.id.name, masks, "Prune less, or protect them with exclude.")
        masking = Masking(parameters, masks)
        by_hand = not module.automatic_optimization
        # Also masks weights that a module omits from its checkpoints.
        masking.hold(fit.trainer.optimizers, elementwise=fit.gradients_stay_masked(), by_hand=by_hand)
        fit.enter_round(ticket.id)
        return cls(
            id=ticket.id,
            masks=masks,
            following=ticket.following,
            start=start,
            masking=masking,
            validation=ValidationWatch(ticket.id.name, module, parameters, masking, settings.monitor),
            masks_hash=masks_hash,
            metric=MonitoredMetric(settings.monitor, settings.mode, fit.trainer),
            progress=report.progress(ticket.id, settings.sizes.last_round, ticket.density),
            started=time.perf_counter(),
            gradients=GradientWatch(module) if ticket.id == RoundId(0) else None,
        )

    @property
    def prunable_masks(self) -> Masks:
        """The masks that density counts."""
        return {name: mask for name, mask in self.masks.items() if name not in self.following}

    @property
    def name(self) -> str:
        """The name of the round in files, folders and loggers."""
        return self.id.name

    def track_gradients(self) -> None:
        """Tracks which parameters have had a gradient, in round 0."""
        if self.gradients is not None:
            self.gradients.update()

    def find_copies(self, module: nn.Module, known: Collection[str], fit: RoundsFit) -> dict[str, str | None]:
        """Finds parameters that turn out to be copies of trained weights.

        Args:
            module: The network.
            known: The copies that are known already.
            fit: The Trainer. Process 0 decides.

        Returns:
            For each new copy the name of its original, or ``None`` if it is unknown.
        """
        if self.gradients is None or not self.gradients.is_supported:
            return {}
        self.gradients.update()
        found = find_copies(self.gradients.without, module, self.start.weights())
        new: dict[str, str | None] = fit.trainer.strategy.broadcast(
            {name: original for name, original in found.items() if name not in known}
        )
        return new

    def leave_out(self, names: Collection[str]) -> None:
        """Removes parameters from the masks of round 0, also in its ticket."""
        self.masks = {name: mask for name, mask in self.masks.items() if name not in names}
        self.masks_hash, self.masks_seen = fingerprint(self.masks), []
        self.start = self.start.without(names)

    def release(self) -> None:
        """Removes all hooks from optimizers, parameters and layers. May be called twice."""
        self.masking.release()
        self.validation.release()
        if self.gradients is not None:
            self.gradients.release()

    def see_masks(self, masks: Masks, window: int) -> list[Masks]:
        """Adds the masks that pruning after this epoch would give. Returns those of the last epochs.

        Args:
            masks: The new masks.
            window: The largest number of epochs to keep.
        """
        counted = {name: mask for name, mask in masks.items() if name not in self.following}
        seen = [*self.masks_seen, {name: pack(mask) for name, mask in counted.items()}]
        self.masks_seen = seen[-window:]
        return [
            {name: unpack(bits, masks[name].shape).to(masks[name].device) for name, bits in packed.items()}
            for packed in self.masks_seen
        ]

    def state(self, run: str, folder: RunFolder, module: nn.Module, fit: RoundsFit, has_begun: bool) -> RunState:
        """The state of the round for a checkpoint.

        Args:
            run: The id of the run.
            folder: The run folder.
            module: The network.
            fit: The Trainer.
            has_begun: Whether the round is training. Otherwise the network may still belong to another round, and
                resuming restarts the round.
        """
        module_state = ModuleState.of(module)
        module_state.training.update(fit.training_flags())
        moment = fit.moment() if has_begun else None
        if has_begun and fit.progress.is_last_batch_of_epoch():
            # What was logged at the end of the epoch; after a resumption it would not look new.
            self.metric.observe(fit.trainer)
        if moment is not None and not moment.is_exact:
            # LightningModule.toggle_optimizer changes flags during a batch.
            module_state.requires_grad.update(self.requires_grad)
        return RunState(
            run=run,
            folder=str(folder.path.absolute()),
            round=self.id.number,
            branch=self.id.branch,
            masks_hash=self.masks_hash,
            curve=self.metric.curve.points,
            seconds=time.perf_counter() - self.started,
            masks_seen=self.masks_seen,
            is_cut_short=self.is_cut_short,
            module=module_state,
            moment=moment,
            without_gradient=[] if self.gradients is None else self.gradients.without,
        )

    def restore(self, state: RunState, module: nn.Module) -> None:
        """Restores the state of the round from a checkpoint."""
        self.metric.curve.points = list(state.curve)
        self.started -= state.seconds
        self.masks_seen = state.masks_seen
        self.is_cut_short = state.is_cut_short
        if self.gradients is not None:
            self.gradients = GradientWatch(module, state.without_gradient)

    def record(self, fit: RoundsFit, module: nn.Module, path: str, flops: BatchFlops | None) -> RoundRecord:
        """Makes the record of the round after its training.

        Args:
            fit: The Trainer.
            module: The network.
            path: Path of the ticket file, relative to the run folder.
            flops: The operations of one batch; ``None`` if unknown.
        """
        masks = self.prunable_masks
        kept, prunable = count(list(masks.values())), arithmetic.prunable(masks)
        curve = self.metric.curve
        best_step, best_value = curve.best or (None, None)
        return RoundRecord(
            round=self.id.number,
            branch=self.id.branch,
            density=sum(kept) / prunable,
            kept=sum(kept),
            prunable=prunable,
            parameters=sum(p.numel() for p in module.parameters()),
            metrics={n: float(value) for n, value in fit.trainer.callback_metrics.items() if _is_scalar(value)},
            best_value=best_value,
            best_step=best_step,
            curve=tuple(curve.points),
            steps=fit.progress.steps(),
            last_step=fit.trainer.global_step,
            seconds=time.perf_counter() - self.started,
            masks_hash=self.masks_hash,
            ticket_path=path,
            saved_steps=fit.progress.steps_left() if self.is_cut_short else 0,
            logged_steps=fit.logged_steps(),
            is_cut_short=self.is_cut_short,
            kept_by_layer=dict(zip(masks, kept, strict=True)),
            **self._flops(flops, fit.progress.batches()),
        )

    def _flops(self, flops: BatchFlops | None, batches: int) -> dict[str, int]:
        """The operations of the round, for its record."""
        if flops is None or not flops.total:
            return {}
        kept = count(list(self.masks.values()))
        densities = {name: n / mask.numel() for (name, mask), n in zip(self.masks.items(), kept, strict=True)}
        return {"flops": batches * flops.total, "sparse_flops": round(batches * flops.sparse(densities))}


def _common_hash(ticket: Ticket, fit: RoundsFit) -> str:
    """The fingerprint of the masks, which must be the same on all processes."""
    masks_hash = fingerprint(ticket.masks)
    if len(set(hashes := fit.gather(masks_hash))) > 1:
        raise TrainingError(
            f"The masks of {ticket.id} differ between the processes: {', '.join(hashes)}. A criterion must return "
            "the same scores on every process: use context.seed for random numbers, and context.data.average for "
            "values that depend on batches."
        )
    return masks_hash


def _is_scalar(value: Tensor) -> bool:
    return torch.as_tensor(value).numel() == 1
