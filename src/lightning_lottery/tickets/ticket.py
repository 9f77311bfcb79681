"""A ticket: which weights survive, and the values that they start from."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from lightning_lottery.errors import TicketError
from lightning_lottery.files import local_path
from lightning_lottery.masks import arithmetic, sharding
from lightning_lottery.tickets.file import TicketFile
from lightning_lottery.tickets.provenance import provenance
from lightning_lottery.tickets.tensors import put


def starting_values(module: nn.Module) -> dict[str, Tensor]:
    """Copies all parameters and persistent buffers of a network.

    Args:
        module: Any network.

    Returns:
        Detached clones that share no memory with the network, on its device, keyed as in ``state_dict``; a
        tied parameter stands there once, under its first name.
    """
    saved = module.state_dict().keys()
    tensors: dict[str, Tensor] = dict(module.named_parameters())
    tensors |= {name: buffer for name, buffer in module.named_buffers() if name in saved}
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def _may_grow(target: Tensor, value: Tensor) -> bool:
    """Whether one of two shapes is that of a buffer before its first batch."""
    return not isinstance(target, nn.Parameter) and min(target.numel(), value.numel()) <= 1


def _unset_buffers(module: nn.Module) -> dict[str, nn.Module]:
    """The layers of buffers that are ``None`` until the first batch, by the names of the buffers."""
    return {
        f"{path}.{name}" if path else name: layer
        for path, layer in module.named_modules()
        for name, buffer in vars(layer)["_buffers"].items()  # named_buffers() leaves them out
        if buffer is None
    }


@dataclass(frozen=True, eq=False, repr=False)
class Ticket:
    """Masks, the weights to start from, and where both come from.

    Attributes:
        masks: A boolean tensor for each prunable parameter, ``True`` where a weight survives, keyed as in the
            LightningModule's ``state_dict``.
        weights: The starting values of all parameters and persistent buffers, keyed likewise. Pruned weights
            are exactly zero: whatever values come in, they are masked here.
        round: The number of prunings behind the masks; 0 is the dense network.
        branch: ``"ticket"``, or the name of the control.
        provenance: Strings that say how the ticket was found: criterion, scope, rewind, seed, versions.

    Raises:
        TicketError: A mask is not boolean, or has no weight of its name and shape.
    """

    masks: dict[str, Tensor]
    weights: dict[str, Tensor]
    round: int = 0
    branch: str = "ticket"
    provenance: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        weights = dict(self.weights)
        for name, mask in self.masks.items():
            if name not in weights:
                raise TicketError(f"There is a mask for {name!r}, but no weight of that name.")
            if mask.dtype != torch.bool or mask.shape != weights[name].shape:
                raise TicketError(
                    f"The mask of {name!r} is {mask.dtype} of shape {tuple(mask.shape)}; it must be boolean, of "
                    f"the weight's shape {tuple(weights[name].shape)}."
                )
            kept = sharding.local(weights[name]).masked_fill(~sharding.local(mask), 0)
            weights[name] = sharding.like(kept, weights[name])
        object.__setattr__(self, "weights", weights)

    def __repr__(self) -> str:
        return (
            f"Ticket(round={self.round}, branch={self.branch!r}, density={self.density:.4f}, "
            f"kept={self.kept} of {self.prunable})"
        )

    @property
    def kept(self) -> int:
        """Number of surviving prunable weights."""
        return arithmetic.kept(self.masks)

    @property
    def prunable(self) -> int:
        """Number of prunable weights, surviving or not."""
        return arithmetic.prunable(self.masks)

    @property
    def density(self) -> float:
        """Kept / prunable, in (0, 1]."""
        return arithmetic.density(self.masks)

    def layer_densities(self) -> dict[str, float]:
        """The density of each prunable parameter, in [0, 1], by name."""
        kept = sharding.count(list(self.masks.values()))
        return {name: number / mask.numel() for (name, mask), number in zip(self.masks.items(), kept, strict=True)}

    def to(self, like: Mapping[str, Tensor]) -> "Ticket":
        """Moves masks and weights to where other tensors are.

        Args:
            like: Tensors by name; a weight that is not among them goes to the device of the first. What is sharded
                there will be sharded alike.

        Returns:
            A ticket of the same values.
        """
        first = sharding.local(next(iter(like.values())))
        masks = {name: sharding.place(mask, like.get(name, first)) for name, mask in self.masks.items()}
        weights = {name: sharding.place(weight, like.get(name, first)) for name, weight in self.weights.items()}
        return replace(self, masks=masks, weights=weights)

    def whole(self, keep: bool = True) -> "Ticket | None":
        """Gathers a ticket whose tensors are sharded, one tensor after the other; every process must call it.

        Args:
            keep: Whether this process wants the ticket; else it only takes part.

        Returns:
            The ticket in plain tensors, on the CPU if it was sharded; ``None`` if it was not wanted.
        """
        if not any(map(sharding.is_sharded, self.weights.values())):
            return self if keep else None
        gathered: list[dict[str, Tensor]] = [{}, {}]
        for kind, tensors in zip(gathered, (self.masks, self.weights), strict=True):
            for name, tensor in tensors.items():
                full = sharding.whole(tensor)
                if keep:
                    kind[name] = full.cpu()
        return replace(self, masks=gathered[0], weights=gathered[1]) if keep else None

    @torch.no_grad()
    def apply(self, module: nn.Module) -> None:
        """Copies the starting values into a network in place; pruned weights become exactly zero.

        The network's own tensors stay where they are, on whatever device. Nothing is changed unless everything
        fits; buffers that get their shape in the first batch, as of observers for quantisation, fit before it as
        after it. This sets values once: a training afterwards moves all weights, pruned ones too.

        Args:
            module: A network with the ticket's parameters and buffers.

        Raises:
            TicketError: A parameter is missing on one side, or a shape differs.
        """
        saved = module.state_dict().keys()
        targets: dict[str, Tensor] = dict(module.named_parameters())
        targets |= {name: buffer for name, buffer in module.named_buffers() if name in saved}
        missing = [name for name in targets if name not in self.weights]
        foreign = [name for name in self.weights if name not in targets]
        unset = _unset_buffers(module)
        come = {name: unset[name] for name in foreign if name in unset}
        foreign = [name for name in foreign if name not in come]
        if missing or foreign:
            raise TicketError(
                "The ticket does not fit the network: "
                + "; ".join(
                    f"{where}: {', '.join(map(repr, names))}"
                    for where, names in (("only the network has", missing), ("only the ticket has", foreign))
                    if names
                )
            )
        for name, target in targets.items():
            if target.shape != self.weights[name].shape and not _may_grow(target, self.weights[name]):
                raise TicketError(
                    f"The ticket does not fit the network: {name!r} has shape {tuple(target.shape)} in the "
                    f"network and {tuple(self.weights[name].shape)} in the ticket."
                )
        for name in targets:
            path, _, key = name.rpartition(".")
            put(module.get_submodule(path), key, self.weights[name])
        device = next((target.device for target in targets.values()), None)
        for name, layer in come.items():
            setattr(layer, name.rpartition(".")[-1], self.weights[name].to(device, copy=True))

    def save(self, path: str | Path) -> None:
        """Writes the ticket as a safetensors file: the surviving values, and the masks packed to bits.

        Args:
            path: The file. It is written under a temporary name and renamed.

        Raises:
            ConfigurationError: The path is an address.
            TicketError: A buffer is quantised or nested, which no such file can hold.
        """
        content = TicketFile(self.masks, self.weights, self.round, self.branch, self.provenance)
        content.write(local_path(path, "'ticket.safetensors'"))

    @classmethod
    def load(cls, path: str | Path) -> "Ticket":
        """Reads a ticket file and checks it whole.

        Args:
            path: A file that :meth:`save` wrote.

        Returns:
            The ticket, on the CPU; equal to the saved one bit for bit.

        Raises:
            FileNotFoundError: There is no such file.
            TicketError: The file is damaged or no ticket.
        """
        content = TicketFile.read(local_path(path, "'ticket.safetensors'"))
        return cls(content.masks, content.weights, content.round, content.branch, content.provenance)


def dense_ticket(
    module: nn.Module, parameters: Mapping[str, nn.Parameter], described: Mapping[str, str] | None = None
) -> Ticket:
    """The ticket of round 0: every weight survives, at its present value."""
    masks = {
        # Contiguous whatever the layout of the weights, as masks are written and read.
        name: sharding.like(
            torch.ones(sharding.local(parameter).shape, dtype=torch.bool, device=parameter.device), parameter
        )
        for name, parameter in parameters.items()
    }
    return Ticket(
        masks, starting_values(module), provenance=provenance(module, torch.initial_seed(), described or {})
    )
