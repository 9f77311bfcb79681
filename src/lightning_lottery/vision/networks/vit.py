"""A vision transformer for small images."""

from torchvision.models import VisionTransformer

from lightning_lottery.errors import ConfigurationError
from lightning_lottery.plain import check_number
from lightning_lottery.vision.networks.network import check_sizes


class CifarViT(VisionTransformer):  # type: ignore[misc]  # torchvision has no types
    """torchvision's vision transformer (Dosovitskiy et al. 2021, arXiv:2010.11929), small, for 32 x 32 pixels.

    By default it has the widths of DeiT-Ti (Touvron et al. 2021, arXiv:2012.12877), half its layers, and patches
    of 4 x 4 pixels. Images have three channels.

    Args:
        size: Height and width of the images in pixels.
        patch: Height and width of a patch, a divisor of ``size``.
        layers: Number of transformer layers.
        heads: Attention heads of a layer, a divisor of ``width``.
        width: Features of a token.
        hidden: Units of the hidden layer behind the attention of a layer.
        dropout: Probability of dropout, in [0, 1).
        classes: Number of classes.

    Raises:
        ConfigurationError: A number is not possible.
    """

    def __init__(
        self,
        size: int = 32,
        patch: int = 4,
        layers: int = 6,
        heads: int = 3,
        width: int = 192,
        hidden: int = 768,
        dropout: float = 0.0,
        classes: int = 10,
    ) -> None:
        check_sizes(
            size=size, patch=patch, layers=layers, heads=heads, width=width, hidden=hidden, classes=classes
        )
        check_number("dropout", dropout, "from 0 to below 1", "dropout=0.1")
        if size % patch:
            raise ConfigurationError(f"patch={patch} is not a divisor of size={size}. Write for example patch=4.")
        if width % heads:
            raise ConfigurationError(
                f"heads={heads} is not a divisor of width={width}. Write for example heads=3."
            )
        super().__init__(size, patch, layers, heads, width, hidden, dropout=dropout, num_classes=classes)
