"""Criteria: how a weight is scored. The weights of the smallest scores go."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from lightning_lottery.errors import ConfigurationError


class Data(Protocol):
    """The training data and the loss of a LightningModule, to look at without leaving a trace."""

    def batches(self, number: int) -> list[Any]:
        """The first batches of the fit's own training loader, on the module's device; fewer if it has fewer."""

    def loss(self, batch: Any) -> Tensor:
        """What ``training_step`` gives for a batch, in the precision of the Trainer."""

    def average(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The mean over all processes."""

    def ones(self) -> Tensor:
        """An input of ones, shape (1, …) like one sample of the data."""


@dataclass(frozen=True)
class Context:
    """What a criterion may look at; nothing of it may be changed.

    Attributes:
        weights: The prunable weights as they are, by name.
        start: What they were when the round began, pruned ones zero.
        masks: The survivors.
        module: The network.
        data: Its data and loss.
        seed: For random choices; another one in each round.
    """

    weights: Mapping[str, Tensor]
    start: Mapping[str, Tensor]
    masks: Mapping[str, Tensor]
    module: nn.Module
    data: Data
    seed: int


@dataclass(frozen=True)
class Criterion(ABC):
    """Scores weights. A criterion of your own is one frozen dataclass like those below, or a plain function.

    Attributes:
        needs_training: Whether all scores are alike before any training.
        absolute: Whether weights are ranked by the absolute value of their scores.
        scores_units: Whether units of several weights are scored like weights, and not by the norm of their
            weights' scores; ``context.weights`` then holds a number a unit.
        iterations: How many times a pruning scores and removes a part; the sizes in between fall geometrically,
            and what is removed is zero in the network when the rest is scored again.
    """

    absolute: ClassVar[bool] = False
    needs_training: ClassVar[bool] = False
    scores_units: ClassVar[bool] = False

    @property
    def iterations(self) -> int:
        """See :class:`Criterion`."""
        return 1

    @abstractmethod
    def score(self, context: Context) -> dict[str, Tensor]:
        """Scores every prunable weight.

        Returns:
            By name, a floating-point tensor of the weight's shape, on its device; larger is better. Those of
            pruned weights do not count.
        """


@dataclass(frozen=True)
class Magnitude(Criterion):
    """|w| (Han et al. 2015, arXiv:1506.02626): the *large final* of Zhou et al. 2019 (arXiv:1905.01067)."""

    absolute: ClassVar[bool] = True

    def score(self, context: Context) -> dict[str, Tensor]:
        """See :meth:`Criterion.score`."""
        return dict(context.weights)


@dataclass(frozen=True)
class Random(Criterion):
    """Uniform random numbers, one a unit: the baseline of every criterion."""

    scores_units: ClassVar[bool] = True

    def score(self, context: Context) -> dict[str, Tensor]:
        """See :meth:`Criterion.score`."""
        generator = torch.Generator().manual_seed(context.seed)
        return {
            # In double precision, else equal ones would go by position.
            name: torch.rand(weight.shape, generator=generator, dtype=torch.float64).to(weight.device)
            for name, weight in context.weights.items()
        }


@dataclass(frozen=True)
class Movement(Criterion):
    """|w - w_start|: how far training moved a weight (Zhou et al. 2019, arXiv:1905.01067, *movement*)."""

    absolute: ClassVar[bool] = True
    needs_training: ClassVar[bool] = True

    def score(self, context: Context) -> dict[str, Tensor]:
        """See :meth:`Criterion.score`."""
        return {name: wide(weight) - wide(context.start[name]) for name, weight in context.weights.items()}


@dataclass(frozen=True)
class MagnitudeIncrease(Criterion):
    """|w| - |w_start| (Zhou et al. 2019, arXiv:1905.01067, *magnitude increase*)."""

    needs_training: ClassVar[bool] = True

    def score(self, context: Context) -> dict[str, Tensor]:
        """See :meth:`Criterion.score`."""
        return {n: wide(weight).abs() - wide(context.start[n]).abs() for n, weight in context.weights.items()}


@dataclass(frozen=True)
class LargeFinalSameSign(Criterion):
    """max(0, w · sign(w_start)): large, and of the sign it began with (Zhou et al. 2019, arXiv:1905.01067).

    Their *supermasks* are these masks over initial weights, without training. The weights that changed their sign
    score 0 and go in order of position.
    """

    def score(self, context: Context) -> dict[str, Tensor]:
        """See :meth:`Criterion.score`."""
        return {
            name: (weight * context.start[name].sign()).clamp(min=0) for name, weight in context.weights.items()
        }


@dataclass(frozen=True)
class Function(Criterion):
    """A plain function of one weight tensor.

    Attributes:
        function: Takes a weight and gives scores of its shape.
    """

    function: Callable[[Tensor], Tensor]

    def score(self, context: Context) -> dict[str, Tensor]:
        """See :meth:`Criterion.score`."""
        # A copy: what works in place would change the network.
        return {name: self.function(weight.detach().clone()) for name, weight in context.weights.items()}


def wide(tensor: Tensor) -> Tensor:
    """Half precision as single, in which differences and small products are kept; others as they are."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def criterion_of(argument: "Criterion | Callable[[Tensor], Tensor] | None") -> Criterion:
    """The criterion that an argument asks for; ``None`` is magnitude.

    Raises:
        ConfigurationError: It is none.
    """
    if argument is None:
        return Magnitude()
    if isinstance(argument, Criterion):
        return argument
    if isinstance(argument, type) or not callable(argument):
        raise ConfigurationError(
            f"criterion={argument!r} is no criterion. Write an instance such as criterion=Magnitude(), or a "
            "function f(weight) that gives scores of the weight's shape."
        )
    return Function(argument)
