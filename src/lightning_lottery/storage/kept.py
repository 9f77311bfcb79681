"""States and tickets in the run folder that take no memory between uses."""

import copy
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from typing import Generic

from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from lightning_lottery.errors import LotteryError
from lightning_lottery.masks import is_sharded, like, local, place
from lightning_lottery.storage.folder import AnyState, RunFolder
from lightning_lottery.storage.plain_values import from_plain, to_plain
from lightning_lottery.tickets import Ticket, tensors_of


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
        """Writes a state. If another process could not read it, it is kept on the CPU too, with a warning."""
        self._folder.write_state(self._name, state)
        self._memory = None
        if not (self._folder.is_writer and self._can_be_read()):
            self._memory = from_plain(self._kind, tree_map(_on_cpu, to_plain(state)), self._name, "")

    def _can_be_read(self) -> bool:
        try:
            self._folder.read_state(self._name, self._kind)
        except LotteryError as error:
            if not self._has_warned:
                rank_zero_warn(
                    "This run cannot be resumed if it is interrupted. Let state_dict and get_extra_state of "
                    f"callbacks, modules and data modules return only plain values and tensors. ({error})"
                )
            self._has_warned = True
            return False
        return True

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
            if not folder.is_writer or any(map(is_sharded, ticket.weights.values())):
                self._memory = ticket.mapped(lambda _, tensor: local(tensor).cpu())

    def read(self) -> Ticket:
        """Reads the ticket, to the CPU; sharded tensors to the devices of the network.

        Raises:
            LotteryError: The file is missing or damaged.
        """
        if self._memory is None:
            return self._folder.read_ticket(self._name)
        sharded = {name: tensor for name, tensor in tensors_of(self._module).items() if is_sharded(tensor)}
        return self._memory.mapped(lambda name, part: _resharded(part, sharded[name]) if name in sharded else part)

    def without(self, names: Collection[str]) -> "KeptTicket":
        """Writes the ticket again, without the masks of some parameters."""
        ticket = self.read()
        masks = {name: mask for name, mask in ticket.masks.items() if name not in names}
        return KeptTicket(self._folder, self._name, self._module, replace(ticket, masks=masks))

    def weights(self) -> Mapping[str, Tensor]:
        """The starting values, on the devices of the network. Every access reads or moves one tensor.

        Raises:
            LotteryError: The file is missing or damaged.
        """
        tensors = tensors_of(self._module)
        if self._memory is None:
            return Beside(self._folder.read_weights(self._name), tensors)
        return Beside(self._memory.weights, tensors, _resharded)


class Beside(Mapping[str, Tensor]):
    """Tensors that are moved to the devices of others when they are read.

    Args:
        values: The tensors by name.
        others: Tensors on these devices, by name. The mapping contains only their names.
        move: Moves a tensor to the device of another one. By default it may be sharded on the way.
    """

    def __init__(
        self,
        values: Mapping[str, Tensor],
        others: Mapping[str, Tensor],
        move: Callable[[Tensor, Tensor], Tensor] = place,
    ) -> None:
        self._values, self._move = values, move
        self._others = {name: other for name, other in others.items() if name in values}

    def __getitem__(self, name: str) -> Tensor:
        other = self._others[name]
        return self._move(self._values[name], other)

    def __contains__(self, name: object) -> bool:
        return name in self._others

    def __iter__(self) -> Iterator[str]:
        return iter(self._others)

    def __len__(self) -> int:
        return len(self._others)


def _resharded(part: Tensor, other: Tensor) -> Tensor:
    """Moves this process's part of a tensor to the device of another one, and shards it alike."""
    return like(part.to(local(other).device), other)


def _on_cpu(value: object) -> object:
    return value.cpu() if isinstance(value, Tensor) else value
