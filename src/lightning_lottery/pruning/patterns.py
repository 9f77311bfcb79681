"""Patterns: which weights of a layer are removed together."""

from abc import abstractmethod
from dataclasses import dataclass
from math import ceil, prod

import torch
from torch import Tensor, nn

from lightning_lottery.errors import ConfigurationError
from lightning_lottery.plain import check_integer, check_number, make_plain
from lightning_lottery.pruning.layers import Layer
from lightning_lottery.pruning.units import Pattern


@dataclass(frozen=True)
class Unstructured(Pattern):
    """Single weights."""

    def unit_norm_dims(self, layer: Layer) -> tuple[int, ...]:
        return layer.norm_dims or ()

    def units(self, shape: tuple[int, ...]) -> int:
        return prod(shape)

    def scores(self, scores: Tensor) -> Tensor:
        return scores

    def alive(self, mask: Tensor) -> Tensor:
        return mask

    def mask(self, alive: Tensor, shape: tuple[int, ...]) -> Tensor:
        return alive


@dataclass(frozen=True)
class NofM(Unstructured):
    """At least ``n`` of every ``m`` consecutive inputs stay; at density n/m, exactly ``n`` (Mishra et al. 2021).

    The groups lie along the input dimension of linear and convolution layers, as sparse tensor cores need them for
    ``NofM(2, 4)`` (arXiv:2104.08378). Single weights are removed, smallest scores first, from groups that have
    more than ``n``. The counts are exact. Densities below n/m raise an error.

    Attributes:
        n: Number of weights that stay in every group, 1 to ``m - 1``.
        m: Size of a group. It must divide the number of inputs.
    """

    n: int = 2
    m: int = 4

    def __post_init__(self) -> None:
        make_plain(self)
        check_integer("n", self.n, 1, "NofM(2, 4)")
        check_integer("m", self.m, 2, "NofM(2, 4)")
        if self.n >= self.m:
            raise ConfigurationError(f"NofM(n={self.n}, m={self.m}) must have n < m. Write NofM(2, 4).")

    def check(self, layer: Layer) -> None:
        _refuse_other_layers(self, layer)
        if layer.shape[1] % self.m:
            raise ConfigurationError(
                f"{self} needs groups of {self.m} inputs, but {layer.name!r} has {layer.shape[1]} inputs, which "
                f"is not a multiple of {self.m}. Leave it out with exclude=[{layer.name!r}]."
            )

    def unit_norm_dims(self, layer: Layer) -> tuple[int, ...]:
        """Every row keeps weights in any case."""
        return () if layer.norm_dims == (0,) else Pattern.unit_norm_dims(self, layer)

    def least(self, layer: Layer) -> int:
        return prod(layer.shape) // self.m * self.n

    def least_of(self, layer: Layer, alive: Tensor) -> int:
        return int((alive & ~self.removable(torch.zeros(alive.shape), alive)).count_nonzero())

    def removable(self, scores: Tensor, alive: Tensor) -> Tensor:
        groups = (*scores.movedim(1, -1).shape[:-1], -1, self.m)
        grouped, values = alive.movedim(1, -1).reshape(groups), scores.movedim(1, -1).reshape(groups)
        # Sorted with dead weights first, then by score, then by position. All but the last n may be removed.
        order = values.argsort(dim=-1, stable=True)
        order = order.gather(-1, grouped.gather(-1, order).to(torch.uint8).argsort(dim=-1, stable=True))
        chosen = torch.zeros_like(grouped).scatter_(-1, order[..., : -self.n], True)
        return torch.logical_and(chosen, grouped).flatten(-2).movedim(-1, 1).contiguous()


class Rows(Pattern):
    """Base class of patterns whose units are the slices of a weight along its first dimension."""

    @property
    @abstractmethod
    def norm(self) -> float:
        """The exponent of :class:`Channels`."""

    def units(self, shape: tuple[int, ...]) -> int:
        return shape[0]

    def scores(self, scores: Tensor) -> Tensor:
        return _powers(scores, self.norm).reshape(len(scores), -1).sum(dim=1)

    def alive(self, mask: Tensor) -> Tensor:
        return mask.reshape(len(mask), -1).any(dim=1)

    def mask(self, alive: Tensor, shape: tuple[int, ...]) -> Tensor:
        return alive.view(-1, *[1] * (len(shape) - 1)).expand(shape).contiguous()


@dataclass(frozen=True)
class Channels(Rows):
    """Whole output channels of convolutions, or neurons of linear layers (Li et al. 2017, arXiv:1608.08710).

    The score of a channel is the sum of the scores of its weights, each raised to the power ``norm`` with its sign
    kept. For magnitudes, this ranks channels by that norm. Biases stay.

    Attributes:
        norm: The exponent, above 0. 1 means the sum of magnitudes, 2 the Euclidean norm.
        outputs: Whether channels of the last layer in the order of definition, usually the outputs of the network,
            may be removed too. If another layer produces the outputs, protect it with
            ``min_density={"head.weight": 1.0}``.
    """

    norm: float = 2.0
    outputs: bool = False

    def __post_init__(self) -> None:
        make_plain(self)
        check_number("norm", self.norm, "above 0", "Channels(norm=2)")
        if not isinstance(self.outputs, bool):
            raise ConfigurationError(f"outputs={self.outputs!r} must be True or False.")

    def check(self, layer: Layer) -> None:
        _refuse_other_layers(self, layer)

    def least(self, layer: Layer) -> int:
        return layer.shape[0] if layer.is_last and not self.outputs else 0


@dataclass(frozen=True)
class Block(Pattern):
    """Blocks of ``h`` rows by ``w`` columns (Narang et al. 2017, arXiv:1711.02782).

    A weight with more than 2 dimensions is treated as a matrix of its first dimension by all others. Blocks are
    scored as in :class:`Channels`. Blocks at the lower and right edges may be smaller.

    Attributes:
        h: Rows of a block, at least 1.
        w: Columns of a block, at least 1.
        norm: The exponent of :class:`Channels`, above 0.
    """

    h: int = 4
    w: int = 4
    norm: float = 2.0

    def __post_init__(self) -> None:
        make_plain(self)
        check_integer("h", self.h, 1, "Block(4, 4)")
        check_integer("w", self.w, 1, "Block(4, 4)")
        check_number("norm", self.norm, "above 0", "Block(4, 4, norm=2)")

    def check(self, layer: Layer) -> None:
        if len(layer.shape) < 2:
            raise ConfigurationError(
                f"{self} needs matrices, but {layer.name!r} has shape {layer.shape}. Remove it from include."
            )

    def unit_norm_dims(self, layer: Layer) -> tuple[int, ...]:
        """The rows of a block are removed together."""
        return (0,) if layer.norm_dims == (0,) else super().unit_norm_dims(layer)

    def _grid(self, shape: tuple[int, ...]) -> tuple[int, int]:
        return ceil(shape[0] / self.h), ceil(prod(shape[1:]) / self.w)

    def units(self, shape: tuple[int, ...]) -> int:
        return prod(self._grid(shape))

    def scores(self, scores: Tensor) -> Tensor:
        return self._sums(_powers(scores, self.norm))

    def alive(self, mask: Tensor) -> Tensor:
        return self._sums(mask.float()) > 0

    def mask(self, alive: Tensor, shape: tuple[int, ...]) -> Tensor:
        blown_up = alive.repeat_interleave(self.h, 0).repeat_interleave(self.w, 1)
        return blown_up[: shape[0], : prod(shape[1:])].reshape(shape).contiguous()

    def _sums(self, values: Tensor) -> Tensor:
        rows, columns = self._grid(tuple(values.shape))
        matrix = values.flatten(1)
        padding = (0, columns * self.w - matrix.shape[1], 0, rows * self.h - matrix.shape[0])
        padded = nn.functional.pad(matrix, padding)
        return padded.view(rows, self.h, columns, self.w).sum(dim=(1, 3))


def pattern_of(argument: "Pattern | None") -> Pattern:
    """Converts an argument to a pattern; ``None`` means :class:`Unstructured`.

    Raises:
        ConfigurationError: The argument is not a pattern.
    """
    if argument is not None and not isinstance(argument, Pattern):
        raise ConfigurationError(
            f"pattern={argument!r} is not a pattern. Write an instance such as pattern=NofM(2, 4)."
        )
    return argument or Unstructured()


def _powers(scores: Tensor, exponent: float) -> Tensor:
    values = scores.detach() if scores.dtype == torch.float64 else scores.detach().float()
    return values.sign() * values.abs().pow(exponent)


def _refuse_other_layers(pattern: Pattern, layer: Layer) -> None:
    if len(layer.shape) < 2:
        raise ConfigurationError(
            f"{pattern} needs weights of shape (outputs, inputs, …), but {layer.name!r} has shape {layer.shape}, "
            "like a bias. Remove it from include."
        )
    if not issubclass(layer.kind, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        raise ConfigurationError(
            f"{pattern} supports the weights of linear and convolution layers, of shape (outputs, inputs, …). "
            f"{layer.name!r} belongs to {layer.kind.__name__}. Leave it out with exclude=[{layer.name!r}]."
        )
