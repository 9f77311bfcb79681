"""The pruning between two rounds."""

import hashlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

import torch
from lightning.pytorch import LightningModule
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor, nn

from lightning_lottery._lightning import RoundsFit
from lightning_lottery.channels import Coupling
from lightning_lottery.errors import ConfigurationError, TrainingError
from lightning_lottery.masks import Masks, local
from lightning_lottery.pruning import Context, Data, Pruner, check_scores, layers_of
from lightning_lottery.rules import Settings
from lightning_lottery.storage import Beside
from lightning_lottery.tickets import RoundId


class NextMasks:
    """Computes the masks of a round from the weights that the previous round has trained.

    Attributes:
        parameters: The prunable parameters by name.

    Args:
        pruner: What every round keeps.
        fit: The Trainer, with its data loaded.
        module: The LightningModule.
        parameters: The prunable parameters by name.
        seed: The seed of the run.
        coupling: The channels that depend on each other, if the pattern needs them.
    """

    def __init__(
        self,
        pruner: Pruner,
        fit: RoundsFit,
        module: LightningModule,
        parameters: Mapping[str, nn.Parameter],
        seed: str,
        coupling: Coupling | None,
    ) -> None:
        self._pruner, self._fit, self._module = pruner, fit, module
        self.parameters, self._seed, self._coupling = parameters, seed, coupling

    def without(self, names: Collection[str], settings: Settings) -> "NextMasks":
        """A copy without some parameters, which are no longer pruned."""
        parameters = {name: parameter for name, parameter in self.parameters.items() if name not in names}
        pruner = settings.plan(layers_of(self._module, parameters), self._coupling)
        return NextMasks(pruner, self._fit, self._module, parameters, self._seed, self._coupling)

    @property
    def counts(self) -> list[int]:
        """The number of units that each round keeps."""
        return self._pruner.counts

    def removes(self, number: int) -> bool:
        """Whether a round, from 1, keeps fewer units than the round before."""
        return self._pruner.removes(number)

    def make(self, number: int, masks: Masks, start: Mapping[str, Tensor], is_final: bool = True) -> Masks:
        """Computes the masks of a round. The network contains the weights to score.

        Args:
            number: The round that the masks are for.
            masks: The masks that the weights were trained with.
            start: The values that the weights were trained from.
            is_final: Whether to report layers that would have become empty.
        """
        present = masks
        with torch.no_grad(), self._restoring_weights(), self._training_data(number) as data:

            def context(masks: Masks) -> Context:
                if masks is not present:  # a further iteration sees the network without the removed weights
                    for name, parameter in self.parameters.items():
                        parameter.masked_fill_(~masks[name], 0)
                return self._context(number, masks, start, data)

            masks, rescued = self._pruner.masks(number, masks, context)
        if rescued and is_final:
            rank_zero_warn(
                f"{RoundId(number)} would keep nothing of {', '.join(map(repr, rescued))}. One unit stays, "
                "so that the layers do not become empty. Prune less, or protect such layers with min_density.",
            )
        return masks

    @contextmanager
    def _restoring_weights(self) -> Iterator[None]:
        """Restores the weights that iterations of a criterion set to zero."""
        iterates = self._pruner.method.criterion.iterations > 1
        saved = {name: p.detach().clone() for name, p in self.parameters.items()} if iterates else {}
        try:
            yield
        finally:
            for name, weight in saved.items():
                self.parameters[name].copy_(weight)

    def try_out(self, masks: Masks, start: Mapping[str, Tensor], is_first: bool) -> None:
        """Computes scores once, so that a faulty criterion fails before training.

        Args:
            masks: The masks of the dense network.
            start: The initial values.
            is_first: Whether the first pruning comes before any training.

        Raises:
            LotteryError: The criterion fails.
        """
        criterion = self._pruner.method.criterion
        try:
            with torch.no_grad(), self._training_data(1) as data:
                scores = criterion.score(self._context(1, masks, start, data))
        except TrainingError as error:
            if is_first or not isinstance(error.__cause__, AttributeError):
                raise
            return  # training_step may need what training hooks set; it will exist later
        # Equal scores are acceptable here, since some weights are zero until they are trained.
        prunable = {name: masks[name] for name in self.parameters}
        check_scores(criterion, scores, prunable, allow_equal=not is_first)
        unranked = [name for name, score in scores.items() if bool(local(score).isnan().any())]
        if unranked:
            raise ConfigurationError(
                f"{criterion} returns NaN for {', '.join(map(repr, unranked))} before any training. Are all "
                "weights and buffers finite? Use another criterion, or leave these layers out with exclude."
            )

    def _training_data(self, number: int) -> AbstractContextManager[Data]:
        seed = derived_seed(self._seed, "criterion", number)
        return self._fit.training_data(list(self.parameters.values()), seed)

    def _context(self, number: int, masks: Masks, start: Mapping[str, Tensor], data: Data) -> Context:
        seed = derived_seed(self._seed, "criterion", number)
        prunable = {name: masks[name] for name in self.parameters}
        return Context(self.parameters, Beside(start, self.parameters), prunable, self._module, data, seed)


def derived_seed(seed: str, purpose: str, number: int) -> int:
    """A seed of 48 bits that differs between runs, purposes and rounds.

    Args:
        seed: The seed of the run.
        purpose: What the random numbers are for.
        number: The round.
    """
    digest = hashlib.sha256(f"{seed}/{purpose}/{number}".encode()).digest()
    return int.from_bytes(digest[:6], "big")
