"""Convolutional networks without normalisation: Conv-2, Conv-4 and Conv-6."""

from typing import ClassVar

from torch import Tensor, nn

from lightning_lottery.errors import ConfigurationError
from lightning_lottery.vision.networks.network import Initialisation, Network, check_sizes


class Conv(Network):
    """A small VGG of Frankle & Carbin 2019 (arXiv:1803.03635, figure 2).

    Pairs of 3 x 3 convolutions, each followed by max-pooling, and then linear layers of 256, 256 and ``classes``
    units, with ReLU between all of them.

    Args:
        channels: Channels of the images.
        classes: Number of classes.
        size: Height and width of the images in pixels, a multiple of 2 to the power of the number of pairs.
        init: How weights are drawn; see :class:`Network`.

    Raises:
        ConfigurationError: A number is not possible.
    """

    widths: ClassVar[tuple[int, ...]]

    def __init__(
        self, channels: int = 3, classes: int = 10, size: int = 32, init: Initialisation = "glorot_normal"
    ) -> None:
        super().__init__(init)
        check_sizes(channels=channels, classes=classes, size=size)
        fan_in, factor = channels, 2 ** len(self.widths)
        pixels, rest = divmod(size, factor)
        if rest:
            raise ConfigurationError(f"size={size} must be a multiple of {factor}. Write for example size=32.")
        layers: list[nn.Module] = []
        for width in self.widths:
            layers += [nn.Conv2d(fan_in, width, 3, padding=1), nn.ReLU()]
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
            fan_in = width
        layers += [nn.Flatten(), nn.Linear(fan_in * pixels**2, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(256, classes))
        self.reset_parameters()

    def forward(self, images: Tensor) -> Tensor:
        """Logits of shape (batch, classes) for images of shape (batch, channels, size, size)."""
        logits: Tensor = self.layers(images)
        return logits


class Conv2(Conv):
    """Conv-2: two convolutions and three linear layers, 4.3 million weights for CIFAR-10; see :class:`Conv`."""

    widths = (64,)


class Conv4(Conv):
    """Conv-4: four convolutions and three linear layers, 2.4 million weights for CIFAR-10; see :class:`Conv`."""

    widths = (64, 128)


class Conv6(Conv):
    """Conv-6: six convolutions and three linear layers, 2.3 million weights for CIFAR-10; see :class:`Conv`.

    Frankle & Carbin 2019 count 1.7 million. Zhou et al. 2019 (arXiv:1905.01067) count as here.
    """

    widths = (64, 128, 256)
