"""VGG with batch normalisation for small images."""

from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from lightning_lottery.plain import check_choice
from lightning_lottery.vision.networks.network import Initialisation, Network, NormInitialisation, check_sizes

# The number of convolutions in each of the five stages (Simonyan & Zisserman 2014, arXiv:1409.1556, table 1).
_STAGES = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
_WIDTHS = (64, 128, 256, 512, 512)


class CifarVGG(Network):
    """VGG with batch normalisation for images of 32 x 32 pixels, without hidden linear layers.

    As in the code of Frankle et al. 2020 (arXiv:1912.05671): convolutions with biases, each followed by batch
    normalisation and ReLU; max-pooling between the five stages; average pooling and one linear layer at the end.

    Args:
        depth: 11, 13, 16 or 19. As in the name of the original VGG, it counts three linear layers.
        channels: Channels of the images.
        classes: Number of classes.
        init: How weights are drawn; see :class:`Network`.
        norm_init: How the scales of batch normalisation start; see :class:`Network`.

    Raises:
        ConfigurationError: Another depth was given, or a number is not possible.
    """

    def __init__(
        self,
        depth: Literal[11, 13, 16, 19] = 16,
        channels: int = 3,
        classes: int = 10,
        init: Initialisation = "he_normal",
        norm_init: NormInitialisation = "ones",
    ) -> None:
        super().__init__(init, norm_init)
        check_choice("depth", depth, tuple(_STAGES))
        check_sizes(channels=channels, classes=classes)
        layers: list[nn.Module] = []
        for (fan_in, width), count in zip(pairwise((channels, *_WIDTHS)), _STAGES[depth], strict=True):
            layers += [nn.MaxPool2d(2)] if layers else []
            for number in range(count):
                convolution = nn.Conv2d(width if number else fan_in, width, 3, padding=1)
                layers += [convolution, nn.BatchNorm2d(width), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.output = nn.Linear(_WIDTHS[-1], classes)
        self.reset_parameters()

    def forward(self, images: Tensor) -> Tensor:
        """Logits of shape (batch, classes) for images of shape (batch, channels, height, width)."""
        logits: Tensor = self.output(self.layers(images).mean((2, 3)))
        return logits
