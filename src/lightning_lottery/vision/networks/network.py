"""What the networks share: how their weights are initialised."""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_lottery.errors import ConfigurationError
from lightning_lottery.plain import check_choice, check_integer

Initialisation = Literal["default", "glorot_normal", "he_normal"]
NormInitialisation = Literal["ones", "uniform"]

_DRAWS: dict[str, Callable[[Tensor], Tensor]] = {
    "glorot_normal": nn.init.xavier_normal_,
    "he_normal": lambda weight: nn.init.kaiming_normal_(weight, nonlinearity="relu"),
}


class Network(nn.Module):
    """A network whose ``reset_parameters`` draws all initial values as they were drawn at first.

    So the control ``Reinitialize`` draws from the same distribution. All draws come from PyTorch's global
    generator.

    Args:
        init: How the weights of linear layers and convolutions are drawn. ``"glorot_normal"`` (Glorot & Bengio
            2010): variance 2 / (fan-in + fan-out). ``"he_normal"`` (He et al. 2015, arXiv:1502.01852): variance
            2 / fan-in. Both set biases to zero. ``"default"``: as PyTorch does.
        norm_init: The scales of batch normalisation: all one, or drawn uniformly from [0, 1] as in the code of
            Frankle et al. 2020. Shifts are zero.

    Raises:
        ConfigurationError: ``init`` or ``norm_init`` has another value.
    """

    def __init__(self, init: Initialisation, norm_init: NormInitialisation = "ones") -> None:
        super().__init__()
        self.init = check_choice("init", init, ("default", *_DRAWS))
        self.norm_init = check_choice("norm_init", norm_init, ("ones", "uniform"))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draws the initial values, after the layers have drawn those of PyTorch."""
        draw = _DRAWS.get(self.init)
        for layer in self.modules():
            if draw is not None and isinstance(layer, (nn.Linear, nn.Conv2d)):
                draw(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
            elif self.norm_init == "uniform" and isinstance(layer, nn.BatchNorm2d):
                nn.init.uniform_(layer.weight)


def stages(fan_in: int, widths: Sequence[int], count: int) -> Iterator[tuple[int, int, int]]:
    """The channels into and out of each block of a residual network, and its stride.

    Args:
        fan_in: Channels before the first block.
        widths: Channels of each stage. The second and later ones begin with a stride of 2.
        count: Number of blocks per stage.
    """
    for stage, width in enumerate(widths):
        for number in range(count):
            yield fan_in, width, 2 if stage > 0 and number == 0 else 1
            fan_in = width


def check_sizes(**sizes: int) -> None:
    """Checks that numbers of channels, classes and the like are integers of at least 1.

    Raises:
        ConfigurationError: One is not.
    """
    for name, size in sizes.items():
        check_integer(name, size, 1, f"{name}=10")


def check_depth(depth: int, first: int, step: int, example: str) -> int:
    """The number of blocks per stage of a residual network.

    Args:
        depth: The number of its layers.
        first: The number of layers that are not in blocks.
        step: The number of layers that one more block per stage adds.
        example: What to write instead.

    Raises:
        ConfigurationError: No number of blocks gives this depth.
    """
    blocks, rest = divmod(check_integer("depth", depth, 1, example) - first, step)
    if rest or blocks < 1:
        raise ConfigurationError(
            f"depth={depth} is not {first} plus a multiple of {step}. Write for example {example}."
        )
    return blocks
