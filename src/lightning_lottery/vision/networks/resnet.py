"""Residual networks for small images."""

from typing import Literal

import torch
from torch import Tensor, nn

from lightning_lottery.plain import check_choice, check_number
from lightning_lottery.vision.networks.network import (
    Initialisation,
    Network,
    NormInitialisation,
    check_depth,
    check_sizes,
    stages,
)

Shortcut = Literal["projection", "padding"]


class CifarResNet(Network):
    """A residual network for images of 32 x 32 pixels (He et al. 2016, arXiv:1512.03385, section 4.2).

    Three stages of blocks with 16, 32 and 64 channels, then global average pooling and a linear layer. ResNet-20,
    -32, -56 and -110 are those of ``depth`` 20, 32, 56 and 110. Where the number of channels changes, the shortcut
    is by default a 1 x 1 convolution with batch normalisation, as in the code of Frankle et al. 2020
    (arXiv:1912.05671). He et al. use their option A, which has no parameters: ``shortcut="padding"``. Frankle &
    Carbin 2019 call ResNet-20 *ResNet-18*.

    Args:
        depth: Number of layers, 2 plus a multiple of 6.
        channels: Channels of the images.
        classes: Number of classes.
        width: Channels of the first stage.
        shortcut: ``"projection"``; or ``"padding"``, which takes every second pixel and fills the new channels
            with zeros.
        init: How weights are drawn; see :class:`Network`.
        norm_init: How the scales of batch normalisation start; see :class:`Network`.

    Raises:
        ConfigurationError: A number is not possible.
    """

    def __init__(
        self,
        depth: int = 20,
        channels: int = 3,
        classes: int = 10,
        width: int = 16,
        shortcut: Shortcut = "projection",
        init: Initialisation = "he_normal",
        norm_init: NormInitialisation = "ones",
    ) -> None:
        super().__init__(init, norm_init)
        check_sizes(channels=channels, classes=classes, width=width)
        count = check_depth(depth, 2, 6, "depth=20")
        check_choice("shortcut", shortcut, ("projection", "padding"))
        self.conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        widths = [width, 2 * width, 4 * width]
        self.blocks = nn.Sequential(*(_Block(*sizes, shortcut) for sizes in stages(width, widths, count)))
        self.output = nn.Linear(widths[-1], classes)
        self.reset_parameters()

    def forward(self, images: Tensor) -> Tensor:
        """Logits of shape (batch, classes) for images of shape (batch, channels, height, width)."""
        features = self.blocks(self.norm(self.conv(images)).relu())
        logits: Tensor = self.output(features.mean((2, 3)))
        return logits


class _Block(nn.Module):
    """Two 3 x 3 convolutions with batch normalisation, and a shortcut."""

    def __init__(self, fan_in: int, fan_out: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(fan_in, fan_out, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(fan_out)
        self.conv2 = nn.Conv2d(fan_out, fan_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(fan_out)
        self.shortcut: nn.Module = nn.Identity()
        if fan_in != fan_out and shortcut == "projection":
            projection = nn.Conv2d(fan_in, fan_out, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(fan_out))
        elif fan_in != fan_out:
            self.shortcut = _Padding(fan_out - fan_in, stride)

    def forward(self, features: Tensor) -> Tensor:
        inner = self.norm1(self.conv1(features)).relu()
        return torch.relu(self.norm2(self.conv2(inner)) + self.shortcut(features))


class _Padding(nn.Module):
    """Option A of He et al.: fewer pixels, and channels of zeros in front and behind."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.before, self.stride = channels // 2, stride
        self.after = channels - self.before

    def forward(self, features: Tensor) -> Tensor:
        fewer = features[:, :, :: self.stride, :: self.stride]
        return nn.functional.pad(fewer, (0, 0, 0, 0, self.before, self.after))


class WideResNet(Network):
    """A wide residual network for images of 32 x 32 pixels (Zagoruyko & Komodakis 2016, arXiv:1605.07146).

    Three stages of pre-activation blocks with ``16 * widen``, ``32 * widen`` and ``64 * widen`` channels.
    WRN-28-10 is ``WideResNet(28, 10)``.

    Args:
        depth: Number of layers, 4 plus a multiple of 6.
        widen: Factor of all widths but that of the first convolution.
        channels: Channels of the images.
        classes: Number of classes.
        dropout: Probability of dropout between the two convolutions of a block, in [0, 1).
        init: How weights are drawn; see :class:`Network`.

    Raises:
        ConfigurationError: A number is not possible.
    """

    def __init__(
        self,
        depth: int = 16,
        widen: int = 4,
        channels: int = 3,
        classes: int = 10,
        dropout: float = 0.0,
        init: Initialisation = "he_normal",
    ) -> None:
        super().__init__(init)
        check_sizes(widen=widen, channels=channels, classes=classes)
        check_number("dropout", dropout, "from 0 to below 1", "dropout=0.3")
        count = check_depth(depth, 4, 6, "depth=16")
        self.conv = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        widths = [16 * widen, 32 * widen, 64 * widen]
        self.blocks = nn.Sequential(*(_WideBlock(*sizes, dropout) for sizes in stages(16, widths, count)))
        self.norm = nn.BatchNorm2d(widths[-1])
        self.output = nn.Linear(widths[-1], classes)
        self.reset_parameters()

    def forward(self, images: Tensor) -> Tensor:
        """Logits of shape (batch, classes) for images of shape (batch, channels, height, width)."""
        features = self.norm(self.blocks(self.conv(images))).relu()
        logits: Tensor = self.output(features.mean((2, 3)))
        return logits


class _WideBlock(nn.Module):
    """Two 3 x 3 convolutions, each after batch normalisation and ReLU, and a shortcut."""

    def __init__(self, fan_in: int, fan_out: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(fan_in)
        self.conv1 = nn.Conv2d(fan_in, fan_out, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(fan_out)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(fan_out, fan_out, 3, padding=1, bias=False)
        self.projection = None if fan_in == fan_out else nn.Conv2d(fan_in, fan_out, 1, stride, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        active = self.norm1(features).relu()
        inner = self.norm2(self.conv1(active)).relu()
        # A projection comes after the first normalisation and ReLU, an identity before.
        shortcut = features if self.projection is None else self.projection(active)
        summed: Tensor = self.conv2(self.dropout(inner)) + shortcut
        return summed
