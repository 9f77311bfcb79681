"""States and tickets in the run folder that take no memory between uses."""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Generic

from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from lightning_lottery.errors import LotteryError
from lightning_lottery.masks import is_sharded, like, local, place
from lightning_lottery.storage.folder import AnyState, RunFolder
from lightning_lottery.storage.plain_values import from_plain, to_plain
from lightning_lottery.tickets import StoredWeights, Ticket, tensors_of


class KeptState(Generic[AnyState]):
    """A state in a file of the run folder, read whenever it is needed.

    Processes that do not write the folder keep the state on the CPU instead, since they may see the file too late
    or not at all.

    Args:
        folder: The run folder.
        name: The name of the file. It may exist, if a run is resumed.
        kind: The class of the state.
    """

    def __init__(self, folder: RunFolder, name: str, kind: type[AnyState]) -> None:
        self._folder, self._name, self._kind = folder, name, kind
        self._memory: AnyState | None = None
        self._has_warned = False

    def exists(self) -> bool:
        """Whether a state was written."""
        return self._memory is not None or self._folder.has(self._name)

    def write(self, state: AnyState) -> None:
        """Writes a state. If another process could not read it, it stays in memory, with a warning."""
        self._folder.write_state(self._name, state)
        if not self._folder.is_writer:
            self._memory = from_plain(self._kind, tree_map(_on_cpu, to_plain(state)), self._name)
            return
        try:
            self._folder.read_state(self._name, self._kind)
            self._memory = None
        except LotteryError as error:
            self._memory = state
            if not self._has_warned:
                rank_zero_warn(
                    "This run cannot be resumed if it is interrupted. Let state_dict and get_extra_state of "
                    f"callbacks, modules and data modules return only plain values and tensors. ({error})"
                )
            self._has_warned = True

    def read(self) -> AnyState:
        """Reads the state, to the CPU.

        Raises:
            LotteryError: The file is missing or damaged.
        """
        if self._memory is None:
            return self._folder.read_state(self._name, self._kind)
        return copy.deepcopy(self._memory)


class KeptTicket:
    """A ticket in the run folder, read whenever it is needed.

    Processes that do not write the folder keep the ticket on the CPU. So do all processes if it is sharded.

    Args:
        folder: The run folder.
        name: The path of the file, relative to the folder.
        module: The network that the ticket belongs to.
        ticket: The ticket, on the CPU unless it is sharded, to be written; ``None`` if the file exists. It must
            not be changed afterwards. If it is sharded, every process must construct this object.
    """

    def __init__(self, folder: RunFolder, name: str, module: nn.Module, ticket: Ticket | None = None) -> None:
        self._folder, self._name, self._module = folder, name, module
        self._memory: Ticket | None = None
        if ticket is not None:
            folder.write_ticket(name, ticket)
            if not folder.is_writer or _is_sharded(ticket):
                self._memory = _mapped(ticket, lambda _, tensor: local(tensor).cpu())

    def read(self) -> Ticket:
        """Reads the ticket, to the CPU; if it is sharded, to the devices of the network.

        Raises:
            LotteryError: The file is missing or damaged.
        """
        if self._memory is None:
            return self._folder.read_ticket(self._name)
        tensors = tensors_of(self._module)
        return _mapped(self._memory, lambda name, part: _resharded(part, tensors.get(name)))

    def weights(self) -> Mapping[str, Tensor]:
        """The starting values beside those of the network. Every access reads one tensor, unless it is in memory.

        Raises:
            LotteryError: On access, the file is missing or damaged.
        """
        if self._memory is None:
            return Beside(StoredWeights(self._folder.path / self._name), self._module)
        return Beside(self.read().weights, self._module)


class Beside(Mapping[str, Tensor]):
    """Values of the parameters and buffers of a network that are moved to its devices when they are read.

    Args:
        values: The values by name.
        module: The network.
    """

    def __init__(self, values: Mapping[str, Tensor], module: nn.Module) -> None:
        self._values, self._others = values, tensors_of(module)

    def __getitem__(self, name: str) -> Tensor:
        value, other = self._values[name], self._others.get(name)
        return value if other is None else place(value, other)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def _is_sharded(ticket: Ticket) -> bool:
    return any(map(is_sharded, ticket.weights.values()))


def _mapped(ticket: Ticket, change: Callable[[str, Tensor], Tensor]) -> Ticket:
    """A ticket whose tensors are changed, given their names."""
    masks = {name: change(name, mask) for name, mask in ticket.masks.items()}
    return replace(ticket, masks=masks, weights={name: change(name, w) for name, w in ticket.weights.items()})


def _resharded(part: Tensor, other: Tensor | None) -> Tensor:
    """The part of a sharded tensor on the CPU as a tensor sharded like another one."""
    if other is None or not is_sharded(other):
        return part
    return like(part.to(local(other).device), other)


def _on_cpu(value: object) -> object:
    return value.cpu() if isinstance(value, Tensor) else value
