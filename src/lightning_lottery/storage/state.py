"""The state of a run in a checkpoint."""

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from lightning_lottery.errors import ConfigurationError
from lightning_lottery.storage.records import round_name
from lightning_lottery.tickets import ModuleState


@dataclass(frozen=True)
class RunState:
    """The callback's state in a checkpoint: plain values and tensors, so that it loads with ``weights_only=True``.

    Masks, starting weights and records are in the run folder. A checkpoint cannot be resumed without it.

    Attributes:
        run: The id of the run, as in its ``lottery.json``.
        folder: The run folder.
        round: The round that was training.
        branch: Its branch.
        masks_hash: Fingerprint of its masks.
        best_value: Best value of the monitored metric in the round so far.
        best_step: The step at that value.
        seconds: Duration of the round so far.
        masks_seen: The masks that pruning after each of the last epochs would have given, packed to bits.
        is_cut_short: Whether a stop rule has ended the round.
        module: The state of the network that is missing in Lightning's checkpoint (see ``ModuleState``).
        moment: The state of the training that is missing there: random generators of every process at the start of
            the epoch and now, metrics, accumulated gradients (see ``RoundsFit.moment``). Empty between rounds.
        without_gradient: The parameters that have had no gradient in the round so far.
    """

    run: str
    folder: str
    round: int
    branch: str
    masks_hash: str
    best_value: float | None
    best_step: int | None
    seconds: float
    masks_seen: list[dict[str, Any]]
    is_cut_short: bool
    module: dict[str, Any]
    moment: dict[str, Any]
    without_gradient: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, values: dict[str, Any]) -> "RunState":
        """Makes a state from the dictionary in a checkpoint, as ``vars`` returned it.

        Raises:
            ConfigurationError: The checkpoint was written by another version.
        """
        try:
            return cls(**values)
        except TypeError as error:
            raise ConfigurationError(
                f"The checkpoint was written by another version of lightning-lottery ({error}). Resume with that "
                "version; or pass the run folder as ckpt_path, to resume at the start of a round."
            ) from error

    @property
    def name(self) -> str:
        """The name of the round."""
        return round_name(self.round, self.branch)

    def reason_to_restart(self, module: nn.Module, can_resume_within_rounds: bool) -> str | None:
        """Why the round must restart instead of continuing at the checkpoint; ``None`` if it can continue."""
        if not can_resume_within_rounds:
            return "averages of weights cannot be resumed from a checkpoint"
        added = ModuleState(**self.module).missing_layers(module)
        return f"the layers {added} were added during the round and are missing now" if added else None
