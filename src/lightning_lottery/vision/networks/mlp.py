"""Fully connected networks."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from lightning_lottery.errors import ConfigurationError
from lightning_lottery.plain import check_integer
from lightning_lottery.vision.networks.network import Initialisation, Network


class MLP(Network):
    """Fully connected layers with ReLU between them, for flattened images.

    Args:
        sizes: Number of units of the input, of each hidden layer and of the output; at least two numbers.
        init: How weights are drawn; see :class:`Network`.

    Raises:
        ConfigurationError: There are fewer than two sizes, or one is below 1.
    """

    def __init__(self, sizes: Sequence[int] = (784, 100, 50, 10), init: Initialisation = "default") -> None:
        super().__init__(init)
        if len(sizes) < 2:
            raise ConfigurationError(f"sizes={list(sizes)!r} needs at least two numbers, for example [784, 10].")
        sizes = [check_integer(f"sizes[{n}]", size, 1, "sizes=[784, 10]") for n, size in enumerate(sizes)]
        layers: list[nn.Module] = [nn.Flatten()]
        for fan_in, fan_out in pairwise(sizes):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])
        self.reset_parameters()

    def forward(self, images: Tensor) -> Tensor:
        """Classifies images.

        Args:
            images: Shape (batch, …), with one value per input unit.

        Returns:
            Logits of shape (batch, classes).
        """
        logits: Tensor = self.layers(images)
        return logits


class LeNet300100(MLP):
    """LeNet-300-100, the fully connected network of Frankle & Carbin 2019 (arXiv:1803.03635).

    Args:
        init: How weights are drawn. The paper uses ``"glorot_normal"``.
    """

    def __init__(self, init: Initialisation = "default") -> None:
        super().__init__((784, 300, 100, 10), init)
