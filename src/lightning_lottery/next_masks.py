"""The pruning between two rounds, with all that a criterion may look at."""

import hashlib
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager

import torch
from lightning.pytorch import LightningModule
from torch import nn

from lightning_lottery._lightning import RoundsFit
from lightning_lottery.criteria import Context, Data
from lightning_lottery.errors import ConfigurationError
from lightning_lottery.masks import Masks
from lightning_lottery.prunable import layers_of
from lightning_lottery.pruning import Pruner, check_scores
from lightning_lottery.records import round_name
from lightning_lottery.settings import Settings
from lightning_lottery.sharding import local
from lightning_lottery.ticket import Ticket


class NextMasks:
    """Makes the masks of every round out of what the one before has left.

    Args:
        settings: The arguments.
        fit: The Trainer, whose data are loaded.
        module: The LightningModule.
        parameters: The prunable parameters by name.
    """

    def __init__(
        self, settings: Settings, fit: RoundsFit, module: LightningModule, parameters: Mapping[str, nn.Parameter]
    ) -> None:
        self._fit, self._module, self._parameters = fit, module, parameters
        self._pruner: Pruner = settings.method.plan(layers_of(module, parameters), settings.sizes)
        self.counts = self._pruner.counts

    def make(self, number: int, ticket: Ticket, is_final: bool = True) -> Masks:
        """The masks of a round; the network has the weights to score.

        Args:
            number: The round that they are for.
            ticket: What the weights were trained from.
            is_final: Whether layers that would have died are reported.
        """
        with torch.no_grad(), self._looking_on(ticket, number) as data:
            masks, rescued = self._pruner.masks(
                number, ticket.masks, lambda masks: self._context(number, ticket, masks, data)
            )
        if rescued and is_final:
            warnings.warn(
                f"{round_name(number)} would keep nothing of {', '.join(map(repr, rescued))}; one unit stays, "
                "so that the network stays whole. Prune less, or protect such layers by min_density.",
                stacklevel=2,
            )
        return masks

    def try_out(self, ticket: Ticket) -> None:
        """Scores once, so that a criterion that cannot work fails before training.

        Raises:
            LotteryError: It cannot.
        """
        criterion = self._pruner.method.criterion
        with torch.no_grad(), self._looking_on(ticket, 1) as data:
            scores = criterion.score(self._context(1, ticket, ticket.masks, data))
        if not criterion.needs_training:
            check_scores(criterion, scores, ticket.masks)
        unranked = [name for name, score in scores.items() if bool(local(score).isnan().any())]
        if unranked:
            raise ConfigurationError(
                f"{criterion} gives NaN for {', '.join(map(repr, unranked))} before any training. Are all weights "
                "and buffers finite? Take another criterion, or leave these layers out by exclude."
            )

    def _looking_on(self, ticket: Ticket, number: int) -> AbstractContextManager[Data]:
        return self._fit.looking_on(list(self._parameters.values()), seed_of(ticket, "criterion", number))

    def _context(self, number: int, ticket: Ticket, masks: Masks, data: Data) -> Context:
        start = {name: ticket.weights[name] for name in self._parameters}
        seed = seed_of(ticket, "criterion", number)
        return Context(self._parameters, start, masks, self._module, data, seed)


def seed_of(ticket: Ticket, purpose: str, number: int) -> int:
    """A seed of 48 bits that differs between runs, purposes and rounds."""
    digest = hashlib.sha256(f"{ticket.provenance['seed']}/{purpose}/{number}".encode()).digest()
    return int.from_bytes(digest[:6], "big")
