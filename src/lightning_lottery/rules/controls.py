"""Controls: the training of a ticket, repeated with one thing deliberately changed.

They show how much a ticket owes to its mask and how much to its initial values.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from types import FunctionType

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor, nn

from lightning_lottery.errors import ConfigurationError, TicketError
from lightning_lottery.pruning import emptied_norms, largest, norms_by_name
from lightning_lottery.rules.description import described
from lightning_lottery.tickets import Ticket, is_finite, put


@dataclass(frozen=True)
class Control(ABC):
    """Base class of controls: turns the ticket of a round into the ticket that the control trains.

    Write your own as a frozen dataclass with a ``ticket`` method. YAML refers to it by its dotted path.

    Attributes:
        name: The name of the control in records, logs and files: letters, digits and underscores. By default the
            class name in snake_case, followed by the arguments if there are several controls of the class.
    """

    name: str | None = field(default=None, kw_only=True, repr=False)

    @property
    def branch(self) -> str:
        """The name of the control, or its class name in snake_case.

        Names with another meaning in records and files, such as ``ticket``, raise an error before training.
        """
        return self.name or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(self).__name__).lower()

    @abstractmethod
    def ticket(self, ticket: Ticket, dense: Ticket, module: nn.Module, seed: int) -> Ticket:
        """Makes the control's ticket.

        Args:
            ticket: The ticket of the same round.
            dense: The ticket of round 0, with the values that rounds are rewound to. All weights survive in it,
                unless the search starts from a ticket.
            module: The network. Its weights may be changed; the caller restores them.
            seed: Seed for all random choices; it differs between rounds.

        Returns:
            The ticket to train instead. The caller sets its ``branch``.
        """

    def check(self, dense: Ticket, module: nn.Module) -> None:
        """Checks before training that the control is fair for a network. By default it accepts every network.

        Args:
            dense: The ticket of round 0.
            module: The network, at its initial values.

        Raises:
            ConfigurationError: The control cannot be fair for this network.
        """
        return


@dataclass(frozen=True)
class ShuffleMask(Control):
    """The original initial values with a mask whose positions are shuffled within each layer.

    Positions are drawn among the survivors of round 0. Every layer keeps as many weights as in the ticket, and
    like the ticket at least one per norm that weights are divided by (see ``weight_norm``). Also known as *random
    ticket with layerwise density* (Frankle & Carbin 2018, arXiv:1803.03635, appendix).
    """

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
                f"The function initialize of Reinitialize does not set {', '.join(map(repr, unset))}. It must "
                "initialise every parameter of the given module in place."
            )
        if reordered := self._reordered(fresh, dense):
            rank_zero_warn(
                f"Reinitialize: {len(reordered)} parameters, such as {reordered[0]!r}, were not initialised by "
                "their layers' reset_parameters. They get their own initial values in a new random order. To draw "
                "them as you did, write Reinitialize(initialize=f) with a function f(module).",
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


def branches_of(controls: Sequence[Control]) -> dict[str, Control]:
    """The controls by branch. Several of one class are told apart by the arguments that are not the default ones.

    Raises:
        ConfigurationError: Two controls have the same name.
    """
    short = [control.branch for control in controls]
    names = [
        branch if short.count(branch) == 1 or control.name else branch + _arguments(control)
        for branch, control in zip(short, controls, strict=True)
    ]
    for name in names:
        if names.count(name) > 1:
            same = [control for other, control in zip(names, controls, strict=True) if other == name]
            raise ConfigurationError(
                f"The controls {same} have the same name, {name!r}. Keep one of them, or give each a name: "
                f"{type(same[-1]).__name__}(..., name='{name}_2')."
            )
    return dict(zip(names, controls, strict=True))


def _arguments(control: Control) -> str:
    """The arguments that are not the default ones, as part of a name: ``_scale_0_1``; ``_f`` for a function f."""
    parts = []
    for entry in fields(control):
        value = getattr(control, entry.name)
        if described(value) != described(entry.default):
            parts.append(_named(control, entry.name, value))
    return re.sub(r"\W+", "_", "".join(parts)).rstrip("_")


def _named(control: Control, argument: str, value: object) -> str:
    """A part of a name that is the same in every process."""
    if isinstance(value, (FunctionType, type)):
        return f"_{value.__name__}"
    if not isinstance(value, (bool, int, float, str, type(None))):
        raise ConfigurationError(
            f"Several controls are {type(control).__name__}, and {argument}={value!r:.100} cannot be part of a "
            f"name. Give each a name: {type(control).__name__}(..., name='other_name')."
        )
    return f"_{argument}_{value}"


@contextmanager
def unchanged(module: nn.Module) -> Iterator[None]:
    """Restores the parameters and buffers of a network on exit, even after an exception."""
    tensors = dict(module.named_parameters()) | dict(module.named_buffers())
    before = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    try:
        yield
    finally:
        for name, value in before.items():
            path, _, key = name.rpartition(".")
            put(module.get_submodule(path), key, value)


def make_control(control: Control, ticket: Ticket, dense: Ticket, module: nn.Module, seed: int) -> Ticket:
    """Makes the ticket of a control, and checks that the comparison is fair.

    Args:
        control: The control. It receives copies of both tickets, so that it cannot change those of the run.
        ticket: The ticket of the round. The control must keep its number of surviving weights, and the names and
            shapes of its masks and weights.
        dense: The ticket of round 0.
        module: The network.
        seed: Seed for all random choices.

    Raises:
        ConfigurationError: The control does not return a ticket, or the ticket is not fair.
    """
    try:
        with unchanged(module):
            made = control.ticket(_copy(ticket), _copy(dense), module, seed)
    except TicketError as error:
        raise ConfigurationError(f"The control {control!r} returns an invalid ticket: {error}") from error
    if not isinstance(made, Ticket):
        raise ConfigurationError(f"The control {control!r} must return a Ticket, but returned {made!r:.200}.")
    if (fault := _unfairness(made, ticket) or _zero_norm(made, module)) is not None:
        raise ConfigurationError(f"The ticket of the control {control!r} {fault}")
    return made


def _copy(ticket: Ticket) -> Ticket:
    masks = {name: mask.clone() for name, mask in ticket.masks.items()}
    return replace(ticket, masks=masks, weights={name: weight.clone() for name, weight in ticket.weights.items()})


def _unfairness(made: Ticket, ticket: Ticket) -> str | None:
    """Describes what is unfair about a ticket; ``None`` if it is fair."""
    for what, names, expected in (("masks", made.masks, ticket.masks), ("weights", made.weights, ticket.weights)):
        missing = [name for name in expected if name not in names]
        foreign = [name for name in names if name not in expected]
        if missing or foreign:
            wrong = f"lacks {missing}" if missing else f"has {foreign}, which are not in the ticket of the round,"
            return f"{wrong} among its {what}. Keep the names of the given ticket: replace(ticket, {what}=...)."
    if shapes := [name for name, weight in made.weights.items() if weight.shape != ticket.weights[name].shape]:
        return f"has other shapes than the network for {shapes}."
    odd = [name for name, weight in made.weights.items() if not is_finite(weight)]
    if infinite := [name for name in odd if is_finite(ticket.weights[name])]:
        return f"contains NaN or infinity in {infinite}, where the ticket of the round is finite."
    if made.kept != ticket.kept:
        return (
            f"keeps {made.kept} weights, but the ticket of the round keeps {ticket.kept}, so that they cannot be "
            "compared. Keep the same number."
        )
    return None


def _zero_norm(made: Ticket, module: nn.Module) -> str | None:
    """Describes which weights would be divided by a norm of zero; ``None`` if there are none."""
    if not (names := emptied_norms(made.masks, module)):
        return None
    return (
        f"removes all weights of a norm that {names[0]!r} is divided by, which would give NaN. Keep at least one "
        f"weight per norm, or leave the layer out with exclude=[{names[0]!r}]."
    )


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
