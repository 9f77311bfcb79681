"""A ticket: which weights survive, and the values they start from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from lightning_lottery.errors import TicketError
from lightning_lottery.files import local_path
from lightning_lottery.masks import arithmetic, sharding
from lightning_lottery.tickets.file import TicketFile
from lightning_lottery.tickets.provenance import provenance
from lightning_lottery.tickets.round_id import TICKET_BRANCH, RoundId
from lightning_lottery.tickets.tensors import put


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """All parameters and persistent buffers of a network, keyed as in ``state_dict``.

    A tied parameter appears once, under its first name.
    """
    saved = module.state_dict().keys()
    tensors: dict[str, Tensor] = dict(module.named_parameters())
    return tensors | {name: buffer for name, buffer in module.named_buffers() if name in saved}


def starting_values(module: nn.Module) -> dict[str, Tensor]:
    """Copies all parameters and persistent buffers of a network, keyed as in ``state_dict``.

    Args:
        module: Any network.

    Returns:
        Detached copies on the CPU, where they take no memory of the training device. Sharded tensors stay sharded.
    """
    tensors = {name: tensor.detach() for name, tensor in tensors_of(module).items()}
    return {
        n: t.clone() if sharding.is_sharded(t) or t.device.type == "cpu" else t.cpu() for n, t in tensors.items()
    }


def _may_grow(target: Tensor, value: Tensor) -> bool:
    """Whether a buffer may get its final shape in the first batch, so that the shapes may differ."""
    return not isinstance(target, nn.Parameter) and min(target.numel(), value.numel()) <= 1


def _unset_buffers(module: nn.Module) -> dict[str, nn.Module]:
    """The layers whose buffers are ``None`` until the first batch, by the names of the buffers."""
    return {
        f"{path}.{name}" if path else name: layer
        for path, layer in module.named_modules()
        for name, buffer in vars(layer)["_buffers"].items()  # named_buffers() omits them
        if buffer is None
    }


@dataclass(frozen=True, eq=False, repr=False)
class Ticket:
    """Masks with the weights to start from, and the provenance of both.

    Attributes:
        masks: A boolean tensor for each prunable parameter, ``True`` where a weight survives, keyed as in the
            LightningModule's ``state_dict``.
        weights: The starting values of all parameters and persistent buffers, keyed likewise. Pruned weights
            are exactly zero; the constructor masks the given values.
        round: The number of prunings behind the masks; 0 is the dense network.
        branch: ``"ticket"``, or the name of the control.
        provenance: How the ticket was found, as strings: criterion, scope, rewind, seed, versions.

    Raises:
        TicketError: A mask is not boolean, or has no weight of its name and shape.
    """

    masks: dict[str, Tensor]
    weights: dict[str, Tensor]
    round: int = 0
    branch: str = TICKET_BRANCH
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
    def id(self) -> RoundId:
        """The training that starts from this ticket."""
        return RoundId(self.round, self.branch)

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
        """Moves masks and weights to the devices of other tensors.

        Args:
            like: Tensors by name. Weights without such a tensor are moved to the device of the first one. Weights
                are sharded like these tensors.

        Returns:
            A ticket with the same values.
        """
        first = sharding.local(next(iter(like.values())))
        return self.mapped(lambda name, tensor: sharding.place(tensor, like.get(name, first)))

    def to_cpu(self) -> "Ticket":
        """Moves masks and weights to the CPU, unless they are sharded."""
        return self.mapped(lambda _, tensor: tensor if sharding.is_sharded(tensor) else tensor.cpu())

    def mapped(self, change: Callable[[str, Tensor], Tensor]) -> "Ticket":
        """Applies a function to every mask and weight, given its name. Returns a new ticket."""
        masks = {name: change(name, mask) for name, mask in self.masks.items()}
        return replace(self, masks=masks, weights={name: change(name, w) for name, w in self.weights.items()})

    def whole(self, keep: bool = True) -> "Ticket | None":
        """Gathers a sharded ticket, one tensor after the other. Every process must call it.

        Args:
            keep: Whether this process needs the ticket.

        Returns:
            The ticket with plain tensors, on the CPU if it was sharded; ``None`` unless ``keep``.
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
        """Copies the starting values into a network in place. Pruned weights become exactly zero.

        The network's tensors stay on their devices. If anything does not fit, nothing is changed. Buffers that get
        their shape in the first batch, such as those of quantisation observers, fit before and after it. Values
        are set only once: later training changes all weights, including pruned ones.

        Args:
            module: A network with the ticket's parameters and buffers.

        Raises:
            TicketError: A parameter exists only in the network or only in the ticket, or a shape differs.
        """
        targets = tensors_of(module)
        missing = [name for name in targets if name not in self.weights]
        foreign = [name for name in self.weights if name not in targets]
        unset = _unset_buffers(module)
        grown = {name: unset[name] for name in foreign if name in unset}
        foreign = [name for name in foreign if name not in grown]
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
        for name, layer in grown.items():
            setattr(layer, name.rpartition(".")[-1], self.weights[name].to(device, copy=True))

    def save(self, path: str | Path) -> None:
        """Writes the ticket as a safetensors file: the surviving values, and the masks packed to bits.

        Args:
            path: The file. It is written atomically.

        Raises:
            ConfigurationError: The path is a URL.
            TicketError: A buffer is quantised or nested and cannot be written.
        """
        content = TicketFile(self.masks, self.weights, self.round, self.branch, self.provenance)
        content.write(local_path(path, "'ticket.safetensors'"))

    @classmethod
    def load(cls, path: str | Path) -> "Ticket":
        """Reads a ticket file and checks all of it.

        Args:
            path: A file written by :meth:`save`.

        Returns:
            The ticket, on the CPU, equal to the saved one bit for bit.

        Raises:
            FileNotFoundError: There is no such file.
            TicketError: The file is damaged or not a ticket.
        """
        content = TicketFile.read(local_path(path, "'ticket.safetensors'"))
        return cls(content.masks, content.weights, content.round, content.branch, content.provenance)


def dense_ticket(
    module: nn.Module, parameters: Mapping[str, nn.Parameter], described: Mapping[str, str] | None = None
) -> Ticket:
    """Makes the ticket of round 0, in which every weight survives with its current value.

    Args:
        module: The network.
        parameters: Its prunable parameters by name.
        described: Criterion, scope, pattern and rewinding rule, as strings.

    Returns:
        The ticket, on the CPU unless it is sharded.
    """
    masks = {name: _all_alive(parameter) for name, parameter in parameters.items()}
    return Ticket(
        masks, starting_values(module), provenance=provenance(module, torch.initial_seed(), described or {})
    )


def _all_alive(parameter: Tensor) -> Tensor:
    """The mask of a parameter of which nothing is pruned."""
    # Contiguous, whatever the layout of the weights, since masks are written and read in this form.
    if not sharding.is_sharded(parameter):
        return torch.ones(parameter.shape, dtype=torch.bool)
    part = sharding.local(parameter)
    return sharding.like(torch.ones(part.shape, dtype=torch.bool, device=part.device), parameter)
