"""What is done to whole batches of images, on the training device."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_lottery.errors import ConfigurationError
from lightning_lottery.plain import check_integer


@dataclass(frozen=True)
class ToFloat:
    """Converts ``uint8`` images to ``float32``, and normalises each channel.

    Attributes:
        mean: What is subtracted from each channel, on a scale of 0 to 1.
        deviation: What the difference is then divided by, above 0.
    """

    mean: Sequence[float] = (0.0,)
    deviation: Sequence[float] = (1.0,)

    @classmethod
    def normalising(cls, images: Tensor) -> "ToFloat":
        """Gives each channel of some images mean 0 and standard deviation 1.

        Args:
            images: ``uint8`` (n, channels, height, width).

        Raises:
            ConfigurationError: A channel is the same in all pixels.
        """
        counts = [torch.bincount(channel.flatten(), minlength=256).double() for channel in images.unbind(1)]
        values = torch.arange(256, dtype=torch.float64, device=images.device) / 255
        if constant := [n for n, count in enumerate(counts) if count.count_nonzero() == 1]:
            raise ConfigurationError(
                f"Channel {constant[0]} has the same value in all images, so it cannot be normalised. Write "
                "normalise=False."
            )
        means = [float(count @ values / count.sum()) for count in counts]
        pairs = zip(counts, means, strict=True)
        deviations = [float(count @ (values - mean) ** 2 / count.sum()) ** 0.5 for count, mean in pairs]
        return cls(means, deviations)

    def __call__(self, images: Tensor) -> Tensor:
        """Normalises images.

        Args:
            images: ``uint8`` (n, channels, height, width).

        Returns:
            ``float32`` of the same shape, bit-equal to torchvision's ``ToTensor`` and ``Normalize``.
        """
        mean, deviation = (
            torch.tensor(values, dtype=torch.float32, device=images.device).view(-1, 1, 1)
            for values in (self.mean, self.deviation)
        )
        return images.float().div_(255).sub_(mean).div_(deviation)


@dataclass(frozen=True)
class CropAndFlip:
    """Moves each image by up to ``padding`` pixels in both directions, and mirrors half of them.

    That is a random crop of the image with a black border, and a random horizontal flip (He et al. 2016,
    arXiv:1512.03385, section 4.2). Random numbers come from the global generator of the device, so that all rounds
    of a fit see the same images.

    Attributes:
        padding: Width of the border in pixels, at least 0.
        flip: Whether images are mirrored.

    Raises:
        ConfigurationError: ``padding`` is not an integer of at least 0.
    """

    padding: int = 4
    flip: bool = True

    def __post_init__(self) -> None:
        check_integer("padding", self.padding, 0, "padding=4")

    def __call__(self, images: Tensor) -> Tensor:
        """Draws a place and a direction for each image.

        Args:
            images: Shape (n, channels, height, width), of any type.

        Returns:
            The images, of the same shape and type.
        """
        (count, _, height, width), device = images.shape, images.device
        top, left = torch.randint(2 * self.padding + 1, (2, count, 1), device=device)
        rows = top + torch.arange(height, device=device)
        columns = torch.arange(width, device=device)
        if self.flip:
            is_flipped = torch.rand(count, 1, device=device) < 0.5
            columns = torch.where(is_flipped, columns.flip(0), columns)
        columns = left + columns
        padded = torch.nn.functional.pad(images, [self.padding] * 4)
        image = torch.arange(count, device=device).view(-1, 1, 1)
        # Indexing puts the channels last.
        return padded[image, :, rows.unsqueeze(2), columns.unsqueeze(1)].permute(0, 3, 1, 2).contiguous()
