"""A network with every kind of coupling, and its groups written down by hand."""

import torch
from torch import Tensor, nn


class Residual(nn.Module):
    """A residual connection, a depthwise convolution, normalisations, a flattened image, a PReLU with slopes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 5, stride=4, bias=False)
        self.stem_norm = nn.BatchNorm2d(6)
        self.inner = nn.Conv2d(6, 5, 3, padding=1)
        self.inner_norm = nn.BatchNorm2d(5)
        self.back = nn.Conv2d(5, 6, 3, padding=1, bias=False)
        self.back_norm = nn.BatchNorm2d(6)
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.depthwise_norm = nn.BatchNorm2d(6)
        self.pointwise = nn.Conv2d(6, 8, 1)
        self.hidden = nn.Linear(8 * 3 * 3, 12)
        self.slopes = nn.PReLU(12)
        self.output = nn.Linear(12, 10)

    def forward(self, images: Tensor) -> Tensor:
        features = self.stem_norm(self.stem(images.view(-1, 1, 28, 28))).relu()
        inner = self.inner_norm(self.inner(features)).relu()
        features = (features + self.back_norm(self.back(inner))).relu()
        features = self.depthwise_norm(self.depthwise(features)).relu()
        features = nn.functional.max_pool2d(self.pointwise(features).relu(), 2)
        logits: Tensor = self.output(self.slopes(self.hidden(features.flatten(1))))
        return logits


# By the name of the group: the number of its units, and the parameters that are zero where a unit is removed. In
# all of them the channels lie along the first dimension.
GROUPS = {
    "stem.weight": (
        6,
        [
            *("stem.weight", "stem_norm.weight", "stem_norm.bias"),
            *("back.weight", "back_norm.weight", "back_norm.bias"),
            *("depthwise.weight", "depthwise.bias", "depthwise_norm.weight", "depthwise_norm.bias"),
        ],
    ),
    "inner.weight": (5, ["inner.weight", "inner.bias", "inner_norm.weight", "inner_norm.bias"]),
    "pointwise.weight": (8, ["pointwise.weight", "pointwise.bias"]),
    "hidden.weight": (12, ["hidden.weight", "hidden.bias", "slopes.weight"]),
}
KERNELS = [
    *("stem.weight", "inner.weight", "back.weight", "depthwise.weight", "pointwise.weight"),
    *("hidden.weight", "output.weight"),
]


def moved(network: nn.Module, seed: int = 0) -> nn.Module:
    """A network with random values in all parameters and statistics, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                values = torch.randn(tensor.shape, generator=generator)
                tensor.copy_(values.abs() + 0.5 if name.endswith("running_var") else values * 0.5)
    return network.eval()
