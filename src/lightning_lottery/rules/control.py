"""The base class of controls, their names, and the check that they are fair."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from types import FunctionType
from typing import Any, ClassVar

from torch import nn

from lightning_lottery.errors import ConfigurationError, TicketError
from lightning_lottery.pruning import emptied_norms
from lightning_lottery.rules.description import described
from lightning_lottery.tickets import Ticket, is_finite, put


@dataclass(frozen=True)
class Control(ABC):
    """Base class of controls: turns the ticket of a round into the ticket that the control trains.

    Write your own as a frozen dataclass with a ``ticket`` method. YAML refers to it by its dotted path.

    Attributes:
        moves_mask: Whether the mask moves to other single weights, which would break up the units of a pattern.
        keeps_size: Whether its tickets have as many weights as those of the rounds, which is checked.
        from_init: Whether it trains from initialisation, with the schedule at its start, even if the search
            rewinds to a later point. A control of round 0 always does.
        other_data_order: Whether it trains with other random numbers, and so in another order of the data.
        name: The name of the control in records, logs and files: letters, digits and underscores. By default the
            class name in snake_case, followed by the arguments if there are several controls of the class.
    """

    moves_mask: ClassVar[bool] = False
    keeps_size: ClassVar[bool] = True
    from_init: ClassVar[bool] = False
    other_data_order: ClassVar[bool] = False

    name: str | None = field(default=None, kw_only=True, repr=False)

    @property
    def branch(self) -> str:
        """The name of the control, or its class name in snake_case.

        Names with another meaning in records and files, such as ``ticket``, raise an error before training.
        """
        return self.name or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(self).__name__).lower()

    def rounds(self, controlled: Sequence[int]) -> Sequence[int]:
        """Chooses the rounds whose tickets it replaces. By default all that are controlled.

        Args:
            controlled: The argument ``control_rounds``; by default all rounds except 0.
        """
        return controlled

    @abstractmethod
    def ticket(self, ticket: Ticket, dense: Ticket, module: nn.Module, seed: int) -> Ticket:
        """Makes the control's ticket.

        Args:
            ticket: The ticket of the same round.
            dense: The ticket of round 0, with the values that rounds return to: those of initialisation or of the
                later point; with rules that keep the trained weights, such as :class:`LearningRate`, those at the
                end of round 0; if the control trains from initialisation, those. All weights survive in it,
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


def branches_of(controls: Sequence[Control]) -> dict[str, Control]:
    """The controls by branch. Several of one class are told apart by the arguments that are not the default ones.

    Raises:
        ConfigurationError: Two controls have the same name.
    """
    short = [control.branch for control in controls]
    names = [
        branch if short.count(branch) == 1 or control.name else branch + _arguments(control, control)
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


def _arguments(owner: Any, control: Control) -> str:
    """The arguments that are not the default ones, as part of a name: ``_scale_0_1``; ``_f`` for a function f.

    Args:
        owner: The control, or a dataclass among its arguments, such as a scope.
        control: The control.
    """
    parts = []
    for entry in fields(owner):
        value = getattr(owner, entry.name)
        default = entry.default if entry.default_factory is MISSING else entry.default_factory()
        if described(value) != described(default):
            parts.append(_named(control, entry.name, value))
    return re.sub(r"\W+", "_", "".join(parts)).rstrip("_")


def _named(control: Control, argument: str, value: object) -> str:
    """A part of a name that is the same in every process."""
    if isinstance(value, (FunctionType, type)):
        return f"_{value.__name__}"
    if is_dataclass(value):
        return f"_{type(value).__name__.lower()}{_arguments(value, control)}"
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
        ticket: The ticket of the round. The control must keep the names and shapes of its masks and weights, and
            its number of surviving weights if it says so.
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
    except ConfigurationError as error:
        raise ConfigurationError(
            f"The control {control!r} cannot make a ticket of {ticket.kept} weights: {error}"
        ) from error
    if not isinstance(made, Ticket):
        raise ConfigurationError(f"The control {control!r} must return a Ticket, but returned {made!r:.200}.")
    if (fault := _unfairness(made, ticket, control.keeps_size) or _zero_norm(made, module)) is not None:
        raise ConfigurationError(f"The ticket of the control {control!r} {fault}")
    return made


def _copy(ticket: Ticket) -> Ticket:
    masks = {name: mask.clone() for name, mask in ticket.masks.items()}
    return replace(ticket, masks=masks, weights={name: weight.clone() for name, weight in ticket.weights.items()})


def _unfairness(made: Ticket, ticket: Ticket, keeps_size: bool) -> str | None:
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
    if keeps_size and made.kept != ticket.kept:
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
