"""Patterns: which weights of a layer live or die together."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import ceil, prod

import torch
from torch import Tensor, nn

from lightning_lottery.errors import ConfigurationError
from lightning_lottery.plain import make_plain
from lightning_lottery.pruning.layers import Layer


@dataclass(frozen=True)
class Pattern(ABC):
    """Groups the weights of a layer into units. A pattern of your own is one frozen dataclass like those below."""

    def check(self, layer: Layer) -> None:
        """Refuses a layer that the pattern does not go with; by default none.

        Raises:
            ConfigurationError: It does not, with the reason.
        """
        return

    @abstractmethod
    def units(self, shape: tuple[int, ...]) -> int:
        """The number of units of a layer of this shape."""

    def least(self, layer: Layer) -> int:
        """The number of units of a layer that the pattern never lets go; by default 0."""
        return 0

    def unit_norm_dims(self, layer: Layer) -> tuple[int, ...]:
        """The dimensions of :meth:`scores` along which the norms of ``layer.norm_dims`` lie apart.

        For each place along them, the unit of the largest score is never removed, so that no norm becomes zero. By
        default one unit of the whole layer stays.

        Raises:
            ConfigurationError: The pattern cannot keep a weight for every norm.
        """
        if layer.norm_dims:
            raise ConfigurationError(
                f"{layer.name!r} is divided by norms along dimension {layer.norm_dims[0]}, as by weight_norm, and "
                f"{self} could remove all weights of one, which would give NaN. Leave it out by "
                f"exclude=[{layer.name!r}], or take the normalisation off, for example by "
                "torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight'), or by "
                "torch.nn.utils.remove_weight_norm(layer) if torch.nn.utils.weight_norm put it on."
            )
        return ()

    @abstractmethod
    def scores(self, scores: Tensor) -> Tensor:
        """Scores of units, out of those of a layer's weights."""

    @abstractmethod
    def alive(self, mask: Tensor) -> Tensor:
        """Which units survive, shaped like :meth:`scores`, out of a layer's mask."""

    def removable(self, scores: Tensor, alive: Tensor) -> Tensor:
        """Which of the surviving units may go; by default all. ``scores`` and ``alive`` are those of units."""
        return alive

    @abstractmethod
    def mask(self, alive: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The mask of a layer of this shape whose units survive so."""


@dataclass(frozen=True)
class Unstructured(Pattern):
    """Every weight by itself."""

    def unit_norm_dims(self, layer: Layer) -> tuple[int, ...]:
        """See :meth:`Pattern.unit_norm_dims`."""
        return layer.norm_dims or ()

    def units(self, shape: tuple[int, ...]) -> int:
        """See :meth:`Pattern.units`."""
        return prod(shape)

    def scores(self, scores: Tensor) -> Tensor:
        """See :meth:`Pattern.scores`."""
        return scores

    def alive(self, mask: Tensor) -> Tensor:
        """See :meth:`Pattern.alive`."""
        return mask

    def mask(self, alive: Tensor, shape: tuple[int, ...]) -> Tensor:
        """See :meth:`Pattern.mask`."""
        return alive


@dataclass(frozen=True)
class NofM(Unstructured):
    """At least ``n`` of every ``m`` successive inputs stay; at density n/m, exactly ``n`` (Mishra et al. 2021).

    The groups lie along the input dimension of linear and convolution layers, as sparse tensor cores take them for
    ``NofM(2, 4)`` (arXiv:2104.08378). Single weights go, those of the smallest scores first, from groups that have
    more than ``n``; so a scope gives exact counts, and densities below n/m are refused.

    Attributes:
        n: Weights that stay in every group, 1 to ``m - 1``.
        m: Size of a group; must divide the number of inputs.
    """

    n: int = 2
    m: int = 4

    def __post_init__(self) -> None:
        make_plain(self)
        if type(self.n) is not int or type(self.m) is not int or not 0 < self.n < self.m:
            raise ConfigurationError(f"NofM(n={self.n!r}, m={self.m!r}) must have 0 < n < m. Write NofM(2, 4).")

    def check(self, layer: Layer) -> None:
        """See :meth:`Pattern.check`."""
        _refuse_other_layers(self, layer)
        if layer.shape[1] % self.m:
            raise ConfigurationError(
                f"{self} makes groups of {self.m} inputs, and {layer.name!r} has {layer.shape[1]} inputs, "
                f"which is no multiple of that. Leave it out by exclude=[{layer.name!r}]."
            )

    def unit_norm_dims(self, layer: Layer) -> tuple[int, ...]:
        """See :meth:`Pattern.unit_norm_dims`; every row keeps weights anyhow."""
        return () if layer.norm_dims == (0,) else Pattern.unit_norm_dims(self, layer)

    def least(self, layer: Layer) -> int:
        """See :meth:`Pattern.least`."""
        return prod(layer.shape) // self.m * self.n

    def removable(self, scores: Tensor, alive: Tensor) -> Tensor:
        """See :meth:`Pattern.removable`."""
        groups = (*scores.movedim(1, -1).shape[:-1], -1, self.m)
        grouped, values = alive.movedim(1, -1).reshape(groups), scores.movedim(1, -1).reshape(groups)
        # Dead ones first, then by score, then by position; what comes before the last n may go.
        order = values.argsort(dim=-1, stable=True)
        order = order.gather(-1, grouped.gather(-1, order).to(torch.uint8).argsort(dim=-1, stable=True))
        chosen = torch.zeros_like(grouped).scatter_(-1, order[..., : -self.n], True)
        return torch.logical_and(chosen, grouped).flatten(-2).movedim(-1, 1).contiguous()


@dataclass(frozen=True)
class Channels(Pattern):
    """Whole output channels of convolutions, or neurons of linear layers (Li et al. 2017, arXiv:1608.08710).

    The score of a channel is the sum of its weights' scores to the power of ``norm``, each with its sign: for
    magnitudes, it ranks by that norm. Biases stay.

    Attributes:
        norm: Above 0; 1 is the sum of magnitudes, 2 the Euclidean norm.
        outputs: Whether channels of the last layer in the order of definition, mostly the outputs of the network,
            may go as well. If another layer gives the outputs, protect it by ``min_density={"head.weight": 1.0}``.
    """

    norm: float = 2.0
    outputs: bool = False

    def __post_init__(self) -> None:
        make_plain(self)
        if type(self.norm) not in (int, float) or not 0 < self.norm < float("inf"):
            raise ConfigurationError(f"norm={self.norm!r} must be a number above 0. Write Channels(norm=2).")
        if not isinstance(self.outputs, bool):
            raise ConfigurationError(f"outputs={self.outputs!r} must be True or False.")

    def check(self, layer: Layer) -> None:
        """See :meth:`Pattern.check`."""
        _refuse_other_layers(self, layer)

    def units(self, shape: tuple[int, ...]) -> int:
        """See :meth:`Pattern.units`."""
        return shape[0]

    def least(self, layer: Layer) -> int:
        """See :meth:`Pattern.least`."""
        return layer.shape[0] if layer.is_last and not self.outputs else 0

    def scores(self, scores: Tensor) -> Tensor:
        """See :meth:`Pattern.scores`."""
        return _powers(scores, self.norm).flatten(1).sum(dim=1)

    def alive(self, mask: Tensor) -> Tensor:
        """See :meth:`Pattern.alive`."""
        return mask.flatten(1).any(dim=1)

    def mask(self, alive: Tensor, shape: tuple[int, ...]) -> Tensor:
        """See :meth:`Pattern.mask`."""
        return alive.view(-1, *[1] * (len(shape) - 1)).expand(shape).contiguous()


@dataclass(frozen=True)
class Block(Pattern):
    """Blocks of ``h`` rows by ``w`` columns (Narang et al. 2017, arXiv:1711.02782).

    A weight of more than 2 dimensions is taken as a matrix of its first dimension by all the rest. The score of a
    block is the sum of its weights' scores to the power of ``norm``, as in :class:`Channels`; blocks at the lower
    and right edge may be smaller.

    Attributes:
        h: Rows, at least 1.
        w: Columns, at least 1.
        norm: Above 0.
    """

    h: int = 4
    w: int = 4
    norm: float = 2.0

    def __post_init__(self) -> None:
        make_plain(self)
        sides = all(type(side) is int and side >= 1 for side in (self.h, self.w))
        if not sides or type(self.norm) not in (int, float) or not 0 < self.norm < float("inf"):
            raise ConfigurationError(
                f"{self} must have h and w of at least 1 and a norm above 0. Write Block(4, 4)."
            )

    def check(self, layer: Layer) -> None:
        """See :meth:`Pattern.check`."""
        if len(layer.shape) < 2:
            raise ConfigurationError(
                f"{self} needs matrices, and {layer.name!r} has the shape {layer.shape}. Leave it out of include."
            )

    def unit_norm_dims(self, layer: Layer) -> tuple[int, ...]:
        """See :meth:`Pattern.unit_norm_dims`; the rows of a block share its columns."""
        return (0,) if layer.norm_dims == (0,) else super().unit_norm_dims(layer)

    def _grid(self, shape: tuple[int, ...]) -> tuple[int, int]:
        return ceil(shape[0] / self.h), ceil(prod(shape[1:]) / self.w)

    def units(self, shape: tuple[int, ...]) -> int:
        """See :meth:`Pattern.units`."""
        return prod(self._grid(shape))

    def scores(self, scores: Tensor) -> Tensor:
        """See :meth:`Pattern.scores`."""
        return self._sums(_powers(scores, self.norm))

    def alive(self, mask: Tensor) -> Tensor:
        """See :meth:`Pattern.alive`."""
        return self._sums(mask.float()) > 0

    def mask(self, alive: Tensor, shape: tuple[int, ...]) -> Tensor:
        """See :meth:`Pattern.mask`."""
        blown_up = alive.repeat_interleave(self.h, 0).repeat_interleave(self.w, 1)
        return blown_up[: shape[0], : prod(shape[1:])].reshape(shape).contiguous()

    def _sums(self, values: Tensor) -> Tensor:
        rows, columns = self._grid(tuple(values.shape))
        matrix = values.flatten(1)
        padding = (0, columns * self.w - matrix.shape[1], 0, rows * self.h - matrix.shape[0])
        padded = nn.functional.pad(matrix, padding)
        return padded.view(rows, self.h, columns, self.w).sum(dim=(1, 3))


def pattern_of(argument: "Pattern | None") -> Pattern:
    """The pattern that an argument asks for; ``None`` is single weights.

    Raises:
        ConfigurationError: It is none.
    """
    if argument is not None and not isinstance(argument, Pattern):
        raise ConfigurationError(
            f"pattern={argument!r} is no pattern. Write an instance, such as pattern=NofM(2, 4)."
        )
    return argument or Unstructured()


def _powers(scores: Tensor, exponent: float) -> Tensor:
    values = scores.detach() if scores.dtype == torch.float64 else scores.detach().float()
    return values.sign() * values.abs().pow(exponent)


def _refuse_other_layers(pattern: Pattern, layer: Layer) -> None:
    if len(layer.shape) < 2:
        raise ConfigurationError(
            f"{pattern} needs weights of outputs by inputs, and {layer.name!r} has the shape {layer.shape}, as a "
            "bias has. Leave it out of include."
        )
    if not issubclass(layer.kind, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        raise ConfigurationError(
            f"{pattern} goes with the weights of linear and convolution layers, whose first dimension is that of "
            f"the outputs and whose second is that of the inputs. {layer.name!r} belongs to "
            f"{layer.kind.__name__}: leave it out by exclude=[{layer.name!r}]."
        )
