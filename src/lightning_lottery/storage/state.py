"""What a checkpoint holds of a run, and whether a run may go on."""

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from lightning_lottery.errors import ConfigurationError
from lightning_lottery.storage.records import round_name
from lightning_lottery.tickets import ModuleState


@dataclass(frozen=True)
class RunState:
    """The callback's state in a checkpoint: plain values and tensors, so that it loads with ``weights_only=True``.

    The masks, the starting weights and the records are in the run folder; a checkpoint is of no use without it.

    Attributes:
        run: The identity of the run, as in its ``lottery.json``.
        folder: The run folder.
        round: The round that was training.
        branch: Its branch.
        masks_hash: Fingerprint of its masks.
        best_value: Best value of the monitored metric in the round so far.
        best_step: The step at that value.
        seconds: How long the round had trained.
        masks_seen: What its pruning would have given after the last epochs, packed to bits.
        is_cut_short: Whether a stop rule has ended it.
        module: What Lightning's checkpoint lacks of the network (see ``ModuleState``).
        moment: What it lacks of the training: the generators of every process at the beginning of the epoch and
            now, metrics, gradients between steps (see ``RoundsFit.moment``). Empty between two rounds.
        without_gradient: The parameters that had had no gradient in the round so far.
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
        """Reads what ``vars`` gave.

        Raises:
            ConfigurationError: Another version has written it.
        """
        try:
            return cls(**values)
        except TypeError as error:
            raise ConfigurationError(
                f"Another version of lightning-lottery has written the checkpoint ({error}). Go on by it; "
                "or call lottery.resume(trainer) and fit without ckpt_path, from the start of a round."
            ) from error

    @property
    def name(self) -> str:
        """The name of the round."""
        return round_name(self.round, self.branch)

    def reason_to_begin_again(self, module: nn.Module, goes_on_within_rounds: bool) -> str | None:
        """Why the round cannot go on where the checkpoint was taken; ``None`` if it can."""
        if not goes_on_within_rounds:
            return "averages of weights cannot go on from a checkpoint"
        added = ModuleState(**self.module).missing_layers(module)
        return f"the layers {added} were added while it trained, and are missing" if added else None
