"""Colour images of 32 x 32 pixels: CIFAR-10, CIFAR-100 and SVHN."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torchvision import datasets

from lightning_lottery.errors import ConfigurationError
from lightning_lottery.vision.data.images import TorchvisionData
from lightning_lottery.vision.data.loader import Images


class ColourImages(TorchvisionData):
    """A data set of colour images. By default, training images are augmented and all images normalised.

    Args:
        root: The folder for torchvision's data sets.
        download: Whether to download missing files.
        batch_size: Images per training batch.
        eval_batch_size: Images per batch of validation and test.
        augment: Whether training images are augmented; see :class:`ImageData`.
        normalise: Whether images are normalised; see :class:`ImageData`.
        val_images: Number of training images that are held out to validate, at least 1.
        train_images: Number of images to train with, at least 1; by default all others.
    """

    def __init__(
        self,
        root: str | Path = "data",
        download: bool = True,
        batch_size: int = 128,
        eval_batch_size: int = 1000,
        augment: bool = True,
        normalise: bool = True,
        val_images: int = 5000,
        train_images: int | None = None,
    ) -> None:
        super().__init__(root, download, batch_size, eval_batch_size, augment, normalise, val_images, train_images)


class Cifar(ColourImages):
    """What CIFAR-10 and CIFAR-100 share."""

    source = "https://www.cs.toronto.edu/~kriz/cifar.html (the Python version)"
    is_mirrored = True

    @property
    def folder(self) -> Path:
        """Where torchvision looks for the files."""
        return self.root / str(self.dataset.base_folder)

    def _tensors(self, dataset: Any) -> Images:
        return torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(dataset.targets)


class CIFAR10(Cifar):
    """CIFAR-10 (Krizhevsky 2009) through torchvision: 45,000 images to train, 5,000 to validate, 10,000 to test.

    The files are in ``<root>/cifar-10-batches-py``. For the arguments see :class:`ColourImages`.
    """

    dataset = datasets.CIFAR10


class CIFAR100(Cifar):
    """CIFAR-100, with 100 classes, split like :class:`CIFAR10`. Write ``classes=100`` for network and Classifier.

    The files are in ``<root>/cifar-100-python``. For the arguments see :class:`ColourImages`.
    """

    dataset = datasets.CIFAR100


class SVHN(ColourImages):
    """Street View House Numbers (Netzer et al. 2011) through torchvision.

    68,257 images are to train, 5,000 to validate, 26,032 to test. They are not mirrored. The files are in
    ``<root>``; reading them needs SciPy. For the arguments see :class:`ColourImages`.
    """

    dataset = datasets.SVHN
    source = "http://ufldl.stanford.edu/housenumbers (the cropped digits)"

    @property
    def folder(self) -> Path:
        """Where torchvision looks for the files."""
        return self.root

    def read(self, is_train: bool, download: bool = False) -> Any:
        """The training or the test set of torchvision.

        Raises:
            ConfigurationError: SciPy is missing.
        """
        if find_spec("scipy") is None:
            raise ConfigurationError(
                "The files of SVHN are read by SciPy, which is not installed. Write "
                "pip install 'lightning-lottery[study]'."
            )
        return self.dataset(self.root, split="train" if is_train else "test", download=download)

    def _tensors(self, dataset: Any) -> Images:
        return torch.from_numpy(dataset.data), torch.from_numpy(dataset.labels)
