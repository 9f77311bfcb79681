"""A ticket: which weights survive, and the values that they start from."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from lightning_lottery import masks as mask_arithmetic
from lightning_lottery import sharding
from lightning_lottery.errors import TicketError
from lightning_lottery.files import local_path, write_whole
from lightning_lottery.tensors import put, put_together, take_apart

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_FORMAT = "lightning-lottery ticket"
_VERSION = "1"


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


def _survivors(weight: Tensor, mask: Tensor) -> Tensor:
    """The surviving values in order of position, on the CPU."""
    # NumPy, which knows no bfloat16, compresses integers five times faster than PyTorch indexes by booleans.
    integers = weight.detach().cpu().contiguous().view(-1).view(_INTEGERS[weight.element_size()])
    chosen = np.compress(mask.cpu().contiguous().view(-1).numpy(), integers.numpy())
    return torch.from_numpy(chosen).view(weight.dtype)


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
        return mask_arithmetic.kept(self.masks)

    @property
    def prunable(self) -> int:
        """Number of prunable weights, surviving or not."""
        return mask_arithmetic.prunable(self.masks)

    @property
    def density(self) -> float:
        """Kept / prunable, in (0, 1]."""
        return mask_arithmetic.density(self.masks)

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
        tensors, shapes, kinds = {}, {}, {}
        for name, weight in self.weights.items():
            if (mask := self.masks.get(name)) is not None:
                tensors[f"weight.{name}"] = _survivors(weight, mask)
                tensors[f"mask.{name}"] = mask_arithmetic.pack(mask)
                shapes[name] = list(mask.shape)
                continue
            try:
                parts, kind = take_apart(weight)
            except TypeError as error:
                raise TicketError(
                    f"{name!r} is {error}, which a ticket file cannot hold. Register it with persistent=False."
                ) from error
            if kind is None:
                tensors[f"weight.{name}"] = parts[""]
            else:
                tensors |= {f"part.{part}.{name}": tensor for part, tensor in parts.items()}
                kinds[name] = kind
        metadata = {
            **self.provenance,
            "format": _FORMAT,
            "version": _VERSION,
            "round": str(self.round),
            "branch": self.branch,
            "density": repr(self.density),
            "shapes": json.dumps(shapes),
            **({"kinds": json.dumps(kinds)} if kinds else {}),
        }
        write_whole(local_path(path, "'ticket.safetensors'"), save(tensors, metadata))

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
        path = local_path(path, "'ticket.safetensors'")
        if not path.is_file():
            raise FileNotFoundError(f"There is no ticket file {path}.")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        except (SafetensorError, OSError, ValueError) as error:
            raise TicketError(f"{path} is not a ticket file, or it is damaged: {error}") from error
        if metadata.get("format") != _FORMAT or metadata.get("version") != _VERSION:
            raise TicketError(
                f"{path} says it is {metadata.get('format', 'of no format')!r}, version "
                f"{metadata.get('version', 'none')!r}; this is read: {_FORMAT!r}, version {_VERSION!r}."
            )
        return cls._from_tensors(path, metadata, tensors)

    @classmethod
    def _from_tensors(cls, path: Path, metadata: dict[str, str], tensors: Mapping[str, Tensor]) -> "Ticket":
        name = "its metadata"
        try:
            shapes: dict[str, list[int]] = json.loads(metadata.pop("shapes"))
            number = int(metadata.pop("round"))
            branch = metadata.pop("branch")
            masks, weights = {}, {}
            for name, shape in shapes.items():
                mask = mask_arithmetic.unpack(tensors[f"mask.{name}"], shape)
                survivors = tensors[f"weight.{name}"]
                if survivors.shape != (int(mask.count_nonzero()),):
                    raise ValueError(f"{tuple(survivors.shape)} values for {int(mask.count_nonzero())} survivors")
                masks[name] = mask
                weights[name] = torch.zeros(shape, dtype=survivors.dtype)
                weights[name][mask] = survivors
            for name, kind in json.loads(metadata.pop("kinds", "{}")).items():
                keys = {key: key.split(".", 2) for key in tensors if key.startswith("part.")}
                parts = {part: tensors[key] for key, (_, part, owner) in keys.items() if owner == name}
                weights[name] = put_together(parts, kind)
            for key, tensor in tensors.items():
                name = key.removeprefix("weight.")
                if key.startswith("weight.") and name not in weights:
                    weights[name] = tensor
        except (KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
            raise TicketError(f"{path} is damaged at {name!r}: {error!r}") from error
        for key in ("format", "version", "density"):
            metadata.pop(key, None)
        return cls(masks, weights, round=number, branch=branch, provenance=metadata)
