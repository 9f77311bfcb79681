"""TicketCallback: trains one ticket with its mask held."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from typing_extensions import override

from lightning_lottery._lightning import (
    Hooks,
    RoundsLoop,
    before_optimizers,
    other_callbacks,
    show_in_progress_bar,
)
from lightning_lottery.callback.masking import MaskingCallback
from lightning_lottery.errors import ConfigurationError
from lightning_lottery.masks import fingerprint
from lightning_lottery.preflight import check_trainer
from lightning_lottery.pruning import check_not_lazy
from lightning_lottery.rounds import HeldTicket, mask_weights, rewind_to
from lightning_lottery.storage import GivenTicket, RewindState
from lightning_lottery.tickets import Ticket

_WEIGHTS = ("ticket", "model")


class TicketCallback(MaskingCallback):
    """Trains a ticket: its pruned weights stay exactly zero during a fit, as in a round of a search.

    With ``weights="ticket"``, a fit is bit-equal to the round that trained this ticket, given the same network,
    Trainer, seed and data. For rounds that start at a later point (``rewind="500 steps"``), pass the path of the
    ticket in its run folder, where the optimizers, schedule and data order at that point are kept, too; then the
    optimizers and schedulers must have the same options as in the search. The limits of the Trainer are never
    changed: for rounds of :class:`FineTune`, set them, and the learning rate, yourself.

    The starting values are set once, before the first step. If a fit is resumed (``ckpt_path``), or a Trainer fits
    again, the weights stay, and the mask is held. ``validate``, ``test`` and ``predict`` set pruned weights to
    zero, too. Checkpoints contain the plain model.

    Args:
        ticket: A :class:`Ticket`, or the path of its file. It must fit the network; if it does not, see
            :meth:`Ticket.transfer`.
        weights: What training starts from: ``"ticket"`` for the ticket's starting values, ``"model"`` for the
            network's own values (for example pre-trained ones) under the mask.
        verbose: Whether to print one line about the ticket.

    Raises:
        ConfigurationError: An argument is invalid; or, when fit begins, the Trainer is not supported.
        TicketError: The file is not a ticket; or, when fit begins, the ticket does not fit the network.

    Examples:
        >>> import torch
        >>> ticket = Ticket({"0.weight": torch.tensor([[True, False]])}, {"0.weight": torch.ones(1, 2)})
        >>> TicketCallback(ticket).ticket.density
        0.5
    """

    def __init__(
        self, ticket: Ticket | str | Path, weights: Literal["ticket", "model"] = "ticket", verbose: bool = True
    ) -> None:
        if weights not in _WEIGHTS:
            raise ConfigurationError(f"weights={weights!r} must be 'ticket' or 'model'.")
        if not isinstance(verbose, bool):
            raise ConfigurationError(f"verbose={verbose!r} must be True or False.")
        self._given = GivenTicket.of(ticket, "ticket")
        self._weights, self._verbose = weights, verbose
        self._masks_hash = fingerprint(self.ticket.masks)
        self._held: HeldTicket | None = None
        self._loop: RoundsLoop | None = None
        self._undo: list[Callable[[], None]] = []
        self._summary = ""

    @property
    def ticket(self) -> Ticket:
        """The ticket, on the CPU."""
        return self._given.ticket

    @property
    @override
    def _training(self) -> HeldTicket | None:
        return self._held

    def state_dict(self) -> dict[str, Any]:
        """The fingerprint of the masks, for a checkpoint."""
        return {"masks_hash": self._masks_hash}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Checks that a checkpoint was written with the same masks.

        Raises:
            ConfigurationError: It was not.
        """
        if state_dict != self.state_dict():
            raise ConfigurationError(
                "The checkpoint was written with a ticket with other masks. Use that ticket; or load the weights "
                "into the model without ckpt_path, and write TicketCallback(ticket, weights='model')."
            )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Checks the Trainer, and lets the ticket be put in place before the optimizers are created."""
        if stage != "fit":
            return
        self._close()  # in case an earlier fit ended without teardown
        check_trainer(trainer, MaskingCallback)
        check_not_lazy(pl_module)
        density = f"{self.ticket.density:.3f}"
        self._undo = [
            before_optimizers(trainer, self, lambda: self._put_in_place(trainer, pl_module)),
            show_in_progress_bar(trainer, lambda: {"density": density}),
        ]

    def _put_in_place(self, trainer: Trainer, module: LightningModule) -> None:
        """Sets the weights that training starts from. The network is complete, and a checkpoint is loaded."""
        if self._starts_over(trainer):
            self.ticket.apply(module)
            later = None if trainer.fast_dev_run else self._given.later_start()  # type: ignore[attr-defined]
            if later is not None:
                self._loop = RoundsLoop(trainer, self, Hooks(before_training=lambda: self._rewind(later, module)))
        else:
            mask_weights(self.ticket, module)
        # Now, since tuners change ckpt_path later.
        self._summary = self._described(trainer)

    def _starts_over(self, trainer: Trainer) -> bool:
        """Whether a fit starts from the ticket's values, and not from those of the network or a checkpoint."""
        # Lightning does not count all steps of manual optimization.
        has_trained = trainer.global_step > 0 or trainer.current_epoch > 0
        return self._weights == "ticket" and not has_trained and trainer.ckpt_path is None

    def _rewind(self, state: RewindState, module: LightningModule) -> bool:
        """Starts at the later point of the schedule. Returns whether there is anything to train."""
        assert self._loop is not None, "only with a later point"
        if self._loop.progress.nothing_to_train():
            return False
        rewind_to(state, self.ticket, self._loop, module)
        return True

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints one line about the ticket."""
        if self._verbose:
            trainer.print(self._summary)

    def _described(self, trainer: Trainer) -> str:
        ticket, folder = self.ticket, self._given.folder
        size = f"{ticket.kept:,} of {ticket.prunable:,} prunable weights, density {ticket.density:.4f}"
        if trainer.ckpt_path is not None:
            start = "from a checkpoint"
        elif not self._starts_over(trainer):
            start = "from the weights of the model"
        elif self._loop is not None and folder is not None:
            start = f"like {ticket.id} in {folder.path}, with its schedule"
        else:
            rewind = ticket.provenance.get("rewind", "ToInit()")
            late = "" if rewind == "ToInit()" else f" (of {rewind}; the schedule starts at step 0)"
            start = f"from its starting values{late}"
        return f"Training a ticket {start}: {size}."

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Holds the mask from now on."""
        self._held = HeldTicket.begin(self.ticket, trainer, pl_module, other_callbacks(trainer, self))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Checks that every pruned weight is exactly zero."""
        if self._held is not None:
            self._held.end_epoch()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sets pruned weights to zero if a hook at the end of the training has written to them."""
        if self._held is not None:
            self._held.finish()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sets pruned weights to zero in ``Trainer.validate``."""
        self._mask_before_evaluation(pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sets pruned weights to zero."""
        self._mask_before_evaluation(pl_module)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sets pruned weights to zero."""
        self._mask_before_evaluation(pl_module)

    def _mask_before_evaluation(self, module: LightningModule) -> None:
        # While a fit trains, they are zero anyway.
        if self._held is None:
            mask_weights(self.ticket, module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restores the Trainer."""
        self._close(has_failed=True)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Restores the Trainer."""
        self._close()

    def _close(self, has_failed: bool = False) -> None:
        """Removes all hooks. May be called twice."""
        if self._held is not None:
            self._held.release()
        if self._loop is not None:
            self._loop.undo(has_failed)
        while self._undo:
            self._undo.pop()()
        self._held = self._loop = None
