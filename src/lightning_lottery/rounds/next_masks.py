"""The pruning between two rounds."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

import torch
from lightning.pytorch import LightningModule
from torch import nn

from lightning_lottery._lightning import RoundsFit
from lightning_lottery.errors import ConfigurationError, TrainingError
from lightning_lottery.masks import Masks, local
from lightning_lottery.notices import warn
from lightning_lottery.pruning import Context, Data, Pruner, check_scores, layers_of
from lightning_lottery.rules import Settings
from lightning_lottery.storage import round_name
from lightning_lottery.tickets import Ticket


class NextMasks:
    """Computes the masks of a round from the weights that the previous round has trained.

    Args:
        settings: The arguments.
        fit: The Trainer, with its data loaded.
        module: The LightningModule.
        parameters: The prunable parameters by name.
    """

    def __init__(
        self, settings: Settings, fit: RoundsFit, module: LightningModule, parameters: Mapping[str, nn.Parameter]
    ) -> None:
        self._fit, self._module, self._parameters = fit, module, parameters
        self._pruner: Pruner = settings.method.plan(layers_of(module, parameters), settings.sizes)
        self.counts = self._pruner.counts
        self._is_first = settings.prune_at_init  # whether the next pruning comes before any training

    def make(self, number: int, ticket: Ticket, is_final: bool = True) -> Masks:
        """Computes the masks of a round. The network contains the weights to score.

        Args:
            number: The round that the masks are for.
            ticket: The ticket that the weights were trained from.
            is_final: Whether to report layers that would have become empty.
        """
        with torch.no_grad(), self._restoring_weights(), self._training_data(ticket, number) as data:

            def context(masks: Masks) -> Context:
                if masks is not ticket.masks:  # a further iteration sees the network without the removed weights
                    for name, parameter in self._parameters.items():
                        parameter.masked_fill_(~masks[name], 0)
                return self._context(number, ticket, masks, data)

            masks, rescued = self._pruner.masks(number, ticket.masks, context)
        if rescued and is_final:
            warn(
                f"{round_name(number)} would keep nothing of {', '.join(map(repr, rescued))}. One unit stays, "
                "so that the layers do not become empty. Prune less, or protect such layers with min_density.",
            )
        return masks

    @contextmanager
    def _restoring_weights(self) -> Iterator[None]:
        """Restores the weights that iterations of a criterion set to zero."""
        iterates = self._pruner.method.criterion.iterations > 1
        saved = {name: p.detach().clone() for name, p in self._parameters.items()} if iterates else {}
        try:
            yield
        finally:
            for name, weight in saved.items():
                self._parameters[name].copy_(weight)

    def try_out(self, ticket: Ticket) -> None:
        """Computes scores once, so that a faulty criterion fails before training.

        Raises:
            LotteryError: The criterion fails.
        """
        criterion = self._pruner.method.criterion
        try:
            with torch.no_grad(), self._training_data(ticket, 1) as data:
                scores = criterion.score(self._context(1, ticket, ticket.masks, data))
        except TrainingError as error:
            if self._is_first or not isinstance(error.__cause__, AttributeError):
                raise
            return  # training_step may need what training hooks set; it will exist later
        # Equal scores are acceptable here, since some weights are zero until they are trained.
        check_scores(criterion, scores, ticket.masks, allow_equal=not self._is_first)
        unranked = [name for name, score in scores.items() if bool(local(score).isnan().any())]
        if unranked:
            raise ConfigurationError(
                f"{criterion} returns NaN for {', '.join(map(repr, unranked))} before any training. Are all "
                "weights and buffers finite? Use another criterion, or leave these layers out with exclude."
            )

    def _training_data(self, ticket: Ticket, number: int) -> AbstractContextManager[Data]:
        return self._fit.training_data(list(self._parameters.values()), seed_of(ticket, "criterion", number))

    def _context(self, number: int, ticket: Ticket, masks: Masks, data: Data) -> Context:
        start = {name: ticket.weights[name] for name in self._parameters}
        seed = seed_of(ticket, "criterion", number)
        return Context(self._parameters, start, masks, self._module, data, seed)


def seed_of(ticket: Ticket, purpose: str, number: int) -> int:
    """A seed of 48 bits that differs between runs, purposes and rounds."""
    digest = hashlib.sha256(f"{ticket.provenance['seed']}/{purpose}/{number}".encode()).digest()
    return int.from_bytes(digest[:6], "big")
