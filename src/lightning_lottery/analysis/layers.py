"""How the survivors are distributed over the layers, and within the first layer of a network for images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from statistics import mean

import torch
from torch import Tensor

from lightning_lottery.storage import Replicate, RoundRecord, RunDescription, RunFolder, Runs
from lightning_lottery.tickets import TICKET_BRANCH, RoundId


def layer_densities(runs: Runs) -> dict[int, dict[str, float]]:
    """The density of every prunable parameter in the tickets of all rounds: means over the seeds.

    Args:
        runs: The runs of one experiment, by seed.

    Returns:
        By round and name, in the order of definition. Rounds that were recorded by older versions are left out.
    """
    found: dict[int, dict[str, list[float]]] = {}
    for run in runs.values():
        for number, record in run.records[TICKET_BRANCH].items():
            for name, density in _densities(run.description, record).items():
                found.setdefault(number, {}).setdefault(name, []).append(density)
    return {
        number: {name: mean(values) for name, values in layers.items()}
        for number, layers in sorted(found.items())
        if layers
    }


def _densities(description: RunDescription, record: RoundRecord) -> dict[str, float]:
    sizes = {name: prod(shape) for name, shape in description.prunable.items()}
    return {name: kept / sizes[name] for name, kept in record.kept_by_layer.items() if sizes.get(name)}


@dataclass(frozen=True)
class FirstLayer:
    """The surviving weights of the first layer of a network for images.

    Attributes:
        name: The name of its weight.
        is_pixels: Whether there is one image of all pixels, whose values are the fractions of weights that
            survive at each pixel, means over the seeds. Otherwise there is one image for each filter of a
            convolution in the first run, whose values are the fractions over its input channels.
        images: By round, of shape (height, width), or (filters, height, width), with values in [0, 1].
    """

    name: str
    is_pixels: bool
    images: Mapping[int, Tensor]

    @classmethod
    def of(cls, runs: Runs, rounds: Sequence[int]) -> FirstLayer | None:
        """Reads the masks of the first layer.

        Args:
            runs: The runs of one experiment, by seed.
            rounds: The rounds whose tickets to read, if they exist.

        Returns:
            The images; ``None`` if the inputs are not images, or the first prunable parameter does not read them.

        Raises:
            TicketError: A ticket is damaged.
        """
        first = next(iter(runs.values())).description
        name = next(iter(first.prunable), None)
        if name is None or (is_pixels := _reads_pixels(first.prunable[name], first.input_shape or [])) is None:
            return None
        shown = list(runs.values()) if is_pixels else [next(iter(runs.values()))]
        images = {}
        for number in rounds:
            found = [mask for run in shown if (mask := _mask(run, number, name)) is not None]
            if found:
                size = (-1, *(first.input_shape or [])[-2:]) if is_pixels else found[0].shape
                images[number] = torch.stack([_image(mask.reshape(size), is_pixels) for mask in found]).mean(0)
        return cls(name, is_pixels, images) if images else None


def _reads_pixels(shape: Sequence[int], inputs: Sequence[int]) -> bool | None:
    """Whether a weight has a number for each pixel of an image; ``None`` if it does not read images."""
    channels, size = inputs[:-2], inputs[-2:]
    if len(inputs) not in (2, 3) or min(size) < 4 or (channels and channels[0] not in (1, 3, 4)):
        return None
    if len(shape) == 2 and shape[1] == prod(inputs):
        return True
    reads_channels = len(shape) == 4 and shape[1] == prod(channels) and min(shape[2:]) > 1
    return False if reads_channels else None


def _image(mask: Tensor, is_pixels: bool) -> Tensor:
    return mask.float().mean(0 if is_pixels else 1)


def _mask(run: Replicate, number: int, name: str) -> Tensor | None:
    folder = RunFolder(run.path)
    return folder.read_mask(RoundId(number), name) if RoundId(number) in folder.ticket_ids() else None
