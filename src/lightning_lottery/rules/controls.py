"""Controls: the training of a ticket, repeated with one thing deliberately changed.

They show how much a ticket owes to its mask, and how much to its initial values.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor, nn

from lightning_lottery.errors import ConfigurationError
from lightning_lottery.pruning import (
    Layerwise,
    Method,
    Random,
    Scope,
    Unstructured,
    largest,
    layers_of,
    norms_by_name,
)
from lightning_lottery.rules.control import Control, unchanged
from lightning_lottery.tickets import Ticket, masked_parameters


@dataclass(frozen=True)
class ShuffleMask(Control):
    """The original initial values with a mask whose positions are shuffled within each layer.

    Positions are drawn among the survivors of round 0. Every layer keeps as many weights as in the ticket, and
    like the ticket at least one per norm that weights are divided by (see ``weight_norm``). Also known as *random
    ticket with layerwise density* (Frankle & Carbin 2018, arXiv:1803.03635, appendix).
    """

    moves_mask: ClassVar[bool] = True

    def ticket(self, ticket: Ticket, dense: Ticket, module: nn.Module, seed: int) -> Ticket:
        """Shuffles the positions; see :meth:`Control.ticket`."""
        generator = torch.Generator().manual_seed(seed)
        norms = norms_by_name(module)
        masks = {}
        for name, mask in ticket.masks.items():
            alive = dense.masks[name]
            if name in norms:
                masks[name] = _shuffled_among_norms(mask, alive, norms[name], generator)
            else:
                masks[name] = _reordered(mask, alive, generator)
        return replace(ticket, masks=masks, weights=dense.weights)


@dataclass(frozen=True)
class RandomMask(Control):
    """The original initial values with as many weights as the ticket, at random positions.

    A scope decides how many weights each layer keeps, without any training: the same density in each layer with
    ``Layerwise()``, by the Erdős-Rényi kernel rule with ``ERK()``. In :class:`ShuffleMask`, by contrast, they have
    the densities of the ticket. Positions are drawn among the survivors of round 0. Like the ticket, it keeps at
    least one weight per norm that weights are divided by (see ``weight_norm``).

    Attributes:
        scope: How the weights are shared out among the layers. Rounded counts are corrected so that their total is
            that of the ticket.
    """

    moves_mask: ClassVar[bool] = True

    scope: Scope = field(default_factory=Layerwise)

    def __post_init__(self) -> None:
        if not isinstance(self.scope, Scope):
            raise ConfigurationError(f"scope={self.scope!r} is not a scope. Write for example RandomMask(ERK()).")
        if isinstance(self.scope, Layerwise) and self.scope.layer_amounts:
            raise ConfigurationError(
                f"RandomMask({self.scope!r}) would apply layer_amounts once, but a ticket is pruned several "
                "times. Use min_density instead, or ShuffleMask(), which keeps the layer densities of the ticket."
            )

    def ticket(self, ticket: Ticket, dense: Ticket, module: nn.Module, seed: int) -> Ticket:
        """Draws the positions; see :meth:`Control.ticket`."""
        parameters, _ = masked_parameters(dense, module)
        method = Method(Random(), self.scope, Unstructured())
        pruner = method.one_pruning(layers_of(module, parameters), dense.masks, ticket.kept)
        masks = pruner.random_masks(dense.masks, 1, seed)
        return replace(ticket, masks=masks, weights=dense.weights)


@dataclass(frozen=True)
class Reinitialize(Control):
    """The ticket's mask with fresh initial values (Frankle & Carbin 2018, arXiv:1803.03635, section 2).

    By default every layer draws new values with its own ``reset_parameters``. That is fair only if the network was
    initialised in this way. A parameter that no layer resets, or whose initial values differ in magnitude from
    those of ``reset_parameters``, gets its own initial values in a new random order instead, which keeps their
    distribution. A warning before training names these parameters.

    Attributes:
        initialize: A function that initialises the network in place; if given, it draws all values.
    """

    initialize: Callable[[nn.Module], None] | None = None

    def ticket(self, ticket: Ticket, dense: Ticket, module: nn.Module, seed: int) -> Ticket:
        """Draws fresh values; see :meth:`Control.ticket`."""
        fresh = self._fresh_values(module, seed)
        generator = torch.Generator().manual_seed(seed)
        for name in self._reordered(fresh, dense):
            original = dense.weights[name]
            fresh[name] = _reordered(original, _alive(dense, name), generator)
        return replace(ticket, weights={**dense.weights, **fresh})

    def check(self, dense: Ticket, module: nn.Module) -> None:
        """Tries a first draw; see :meth:`Control.check`."""
        fresh = self._fresh_values(module, seed=0)
        unset = [name for name, values in fresh.items() if values.isnan().any()]
        if unset and self.initialize is not None:
            raise ConfigurationError(
                f"The function initialize of {type(self).__name__} does not set {', '.join(map(repr, unset))}. It "
                "must initialise every parameter of the given module in place."
            )
        if reordered := self._reordered(fresh, dense):
            rank_zero_warn(
                f"{type(self).__name__}: {len(reordered)} parameters, such as {reordered[0]!r}, were not "
                "initialised by their layers' reset_parameters. They get their own initial values in a new random "
                f"order. To draw them as you did, write {type(self).__name__}(initialize=f) with a function "
                "f(module).",
            )

    def _reordered(self, fresh: Mapping[str, Tensor], dense: Ticket) -> list[str]:
        """The parameters for which ``reset_parameters`` is not fair."""
        if self.initialize is not None:
            return []
        alive = {name: _alive(dense, name) for name in fresh}
        return [n for n, values in fresh.items() if _differs(values[alive[n]], dense.weights[n][alive[n]])]

    def _fresh_values(self, module: nn.Module, seed: int) -> dict[str, Tensor]:
        parameters = dict(module.named_parameters())
        devices = sorted({p.get_device() for p in parameters.values() if p.is_cuda})
        with unchanged(module), torch.no_grad(), torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            for parameter in parameters.values():
                parameter.fill_(torch.nan)  # values that stay NaN were not initialised
            (self.initialize or _reset_layers)(module)
            return {name: parameter.detach().clone() for name, parameter in parameters.items()}


@dataclass(frozen=True)
class KeepSign(Reinitialize):
    """The ticket's mask with fresh magnitudes and the original signs (Zhou et al. 2019, arXiv:1905.01067).

    Magnitudes are drawn as in :class:`Reinitialize`. Signs are those of the values that rounds return to; a value
    of zero stays zero.
    """

    def ticket(self, ticket: Ticket, dense: Ticket, module: nn.Module, seed: int) -> Ticket:
        """Draws fresh magnitudes; see :meth:`Control.ticket`."""
        fresh = super().ticket(ticket, dense, module, seed).weights
        names = [name for name, _ in module.named_parameters()]
        signed = {name: fresh[name].abs() * dense.weights[name].sgn() for name in names}
        return replace(ticket, weights={**fresh, **signed})


@dataclass(frozen=True)
class SignOnly(Control):
    """The ticket's mask with only the signs of the initial values (Zhou et al. 2019, arXiv:1905.01067).

    Every prunable weight becomes the sign of its initial value times the root mean square of the initial values of
    its layer, including those of weights that the ticket prunes. Biases and normalisation keep their initial
    values. Initial values are those that rounds return to.
    """

    def ticket(self, ticket: Ticket, dense: Ticket, module: nn.Module, seed: int) -> Ticket:
        """Replaces the magnitudes; see :meth:`Control.ticket`."""
        signs = {}
        for name, alive in dense.prunable_masks.items():
            original = dense.weights[name]
            scale = original[alive].abs().double().square().mean().sqrt().to(original.dtype)
            signs[name] = torch.where(alive, original.sgn() * scale, original)
        return replace(ticket, weights={**dense.weights, **signs})


@dataclass(frozen=True)
class DenseAgain(Control):
    """The training of round 0 once more, in another order of the data.

    Its difference to round 0 is the noise floor: what random numbers alone do. It starts from the same initial
    values. All random numbers of the training differ, also those of augmentation and dropout. It is trained once,
    as round 0 of its branch. The order stays the same if your own sampler has a seed of its own.
    """

    other_data_order: ClassVar[bool] = True

    def rounds(self, controlled: Sequence[int]) -> Sequence[int]:
        return [0]

    def ticket(self, ticket: Ticket, dense: Ticket, module: nn.Module, seed: int) -> Ticket:
        """Returns the ticket of round 0; see :meth:`Control.ticket`."""
        return ticket


@dataclass(frozen=True)
class InitialTicket(Control):
    """The ticket's mask trained from initialisation, for searches whose rounds start later.

    It trains the initial values from step 0, with the whole schedule. With late rewinding it shows whether the
    later point is necessary (Frankle et al. 2019, arXiv:1903.01611).
    """

    from_init: ClassVar[bool] = True

    def ticket(self, ticket: Ticket, dense: Ticket, module: nn.Module, seed: int) -> Ticket:
        """Takes the initial values; see :meth:`Control.ticket`."""
        return replace(ticket, weights=dense.weights)


def _alive(dense: Ticket, name: str) -> Tensor:
    """Which values of a parameter survive in round 0: all of them without a mask."""
    weight = dense.weights[name]
    return dense.masks.get(name, torch.ones(weight.shape, dtype=torch.bool, device=weight.device))


def _reordered(values: Tensor, alive: Tensor, generator: torch.Generator) -> Tensor:
    """Values in a random order among the positions that are alive; the others stay where they are."""
    chosen = values[alive]
    order = torch.randperm(chosen.numel(), generator=generator).to(chosen.device)
    return values.masked_scatter(alive, chosen[order])


def _shuffled_among_norms(mask: Tensor, alive: Tensor, dims: Sequence[int], generator: torch.Generator) -> Tensor:
    """A mask with the same number of weights at random positions that are alive, at least one per norm."""
    scores = torch.rand(mask.shape, generator=generator).masked_fill(~alive.cpu(), -1)
    scores += largest(scores, dims)  # one weight of every norm ranks above all others
    positions = scores.flatten().argsort(descending=True)[: int(mask.sum())]
    shuffled = torch.zeros(mask.numel(), dtype=torch.bool)
    shuffled[positions] = True
    return shuffled.view(mask.shape).to(mask.device)


def _reset_layers(module: nn.Module) -> None:
    # Inner layers first, as in construction, since an outer layer may initialise its inner layers again.
    for layer in reversed(list(module.modules())):
        # PyTorch's attention and transformer layers spell it with an underscore.
        reset = getattr(layer, "reset_parameters", None) or getattr(layer, "_reset_parameters", None)
        if callable(reset):
            reset()


def _differs(fresh: Tensor, original: Tensor) -> bool:
    """Whether two draws cannot come from the same distribution.

    That is so if one is constant and the other is not, or if their root mean squares differ by more than 25 %. The
    second test needs constant values or at least 64 of them.
    """
    if fresh.isnan().any() or _is_constant(fresh) != _is_constant(original):
        return True
    if fresh.numel() < 64 and not _is_constant(fresh):
        return False
    a, b = (float(values.double().square().mean().sqrt()) for values in (fresh, original))
    return abs(a - b) > 0.25 * max(a, b)


def _is_constant(values: Tensor) -> bool:
    return values.numel() > 1 and bool(values.eq(values.flatten()[0]).all())
