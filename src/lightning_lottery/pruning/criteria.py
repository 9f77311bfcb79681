"""Criteria: how a weight is scored. The weights with the smallest scores are removed."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from lightning_lottery.errors import ConfigurationError


class Data(Protocol):
    """The training data and the loss of a LightningModule, without side effects on the training."""

    def batches(self, number: int) -> list[Any]:
        """The first batches of the training loader, on the module's device. There may be fewer than ``number``."""

    def loss(self, batch: Any) -> Tensor:
        """The loss that ``training_step`` returns for a batch, in the precision of the Trainer."""

    def average(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The mean over all processes."""

    def ones(self) -> Tensor:
        """An input of ones with the shape of one sample, (1, …)."""


@dataclass(frozen=True)
class Context:
    """What a criterion may read. It must not change anything.

    Attributes:
        weights: The current prunable weights, by name.
        start: The same weights at the start of the round; pruned ones are zero.
        masks: Boolean masks of the survivors, by name.
        module: The network.
        data: The training data and the loss.
        seed: Seed for random choices; it differs between rounds.
    """

    weights: Mapping[str, Tensor]
    start: Mapping[str, Tensor]
    masks: Mapping[str, Tensor]
    module: nn.Module
    data: Data
    seed: int


@dataclass(frozen=True)
class Criterion(ABC):
    """Base class of criteria. Write your own as a frozen dataclass like those below, or as a function.

    Attributes:
        needs_training: Whether all scores are equal before any training, so that ``prune_at_init`` is impossible.
        absolute: Whether weights are ranked by the absolute value of their scores.
        scores_units: Whether the criterion scores units of several weights directly. Then ``context.weights``
            holds one number per unit. Otherwise a unit is scored by the norm of its weights' scores.
        iterations: Number of times that one pruning scores and removes a part. The sizes in between fall
            geometrically, and removed weights are zero in the network when the rest is scored again.
    """

    absolute: ClassVar[bool] = False
    needs_training: ClassVar[bool] = False
    scores_units: ClassVar[bool] = False

    @property
    def iterations(self) -> int:
        """Number of times that one pruning scores and removes a part; 1 by default."""
        return 1

    @abstractmethod
    def score(self, context: Context) -> dict[str, Tensor]:
        """Scores every prunable weight.

        Returns:
            By name, a floating-point tensor with the shape and device of the weight. Larger is better. The
            scores of pruned weights are ignored.
        """


@dataclass(frozen=True)
class Magnitude(Criterion):
    """|w| (Han et al. 2015, arXiv:1506.02626): the *large final* of Zhou et al. 2019 (arXiv:1905.01067)."""

    absolute: ClassVar[bool] = True

    def score(self, context: Context) -> dict[str, Tensor]:
        return dict(context.weights)


@dataclass(frozen=True)
class Random(Criterion):
    """Uniform random numbers, one per unit: the baseline for every criterion."""

    scores_units: ClassVar[bool] = True

    def score(self, context: Context) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(context.seed)
        return {
            # In double precision, since equal scores would be removed by position.
            name: torch.rand(weight.shape, generator=generator, dtype=torch.float64).to(weight.device)
            for name, weight in context.weights.items()
        }


@dataclass(frozen=True)
class Movement(Criterion):
    """|w - w_start|: how far training moved a weight (Zhou et al. 2019, arXiv:1905.01067, *movement*)."""

    absolute: ClassVar[bool] = True
    needs_training: ClassVar[bool] = True

    def score(self, context: Context) -> dict[str, Tensor]:
        return {name: wide(weight) - wide(context.start[name]) for name, weight in context.weights.items()}


@dataclass(frozen=True)
class MagnitudeIncrease(Criterion):
    """|w| - |w_start| (Zhou et al. 2019, arXiv:1905.01067, *magnitude increase*)."""

    needs_training: ClassVar[bool] = True

    def score(self, context: Context) -> dict[str, Tensor]:
        return {n: wide(weight).abs() - wide(context.start[n]).abs() for n, weight in context.weights.items()}


@dataclass(frozen=True)
class LargeFinalSameSign(Criterion):
    """max(0, w · sign(w_start)): large and of the initial sign (Zhou et al. 2019, arXiv:1905.01067).

    The paper's *supermasks* are these masks over the initial weights, without training. Weights that changed their
    sign have score 0 and are removed in order of position.
    """

    def score(self, context: Context) -> dict[str, Tensor]:
        return {
            name: (weight * context.start[name].sign()).clamp(min=0) for name, weight in context.weights.items()
        }


@dataclass(frozen=True)
class Function(Criterion):
    """A plain function of one weight tensor.

    Attributes:
        function: Takes a weight and returns scores of the same shape.
    """

    function: Callable[[Tensor], Tensor]

    def score(self, context: Context) -> dict[str, Tensor]:
        # A copy, since a function that works in place would change the network.
        return {name: self.function(weight.detach().clone()) for name, weight in context.weights.items()}


def wide(tensor: Tensor) -> Tensor:
    """Converts half precision to single precision, which keeps differences and small products."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def criterion_of(argument: "Criterion | Callable[[Tensor], Tensor] | None") -> Criterion:
    """Converts an argument to a criterion; ``None`` means :class:`Magnitude`.

    Raises:
        ConfigurationError: The argument is not a criterion.
    """
    if argument is None:
        return Magnitude()
    if isinstance(argument, Criterion):
        return argument
    if isinstance(argument, type) or not callable(argument):
        raise ConfigurationError(
            f"criterion={argument!r} is not a criterion. Write an instance such as criterion=Magnitude(), or a "
            "function f(weight) that returns scores of the weight's shape."
        )
    return Function(argument)
