"""What the data modules share: splits, and tensors on the training device."""

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningDataModule
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor

from lightning_lottery.errors import ConfigurationError
from lightning_lottery.plain import check_integer, first_line
from lightning_lottery.vision.data.loader import Images, TensorLoader
from lightning_lottery.vision.data.transforms import CropAndFlip, ToFloat


class ImageData(LightningDataModule):
    """Images and labels that are moved to the training device once.

    Each batch has float32 images of shape (n, channels, height, width), with values in [0, 1] as made by
    torchvision's ``ToTensor``, unless they are normalised. With several devices, all train with the same batches:
    use one (``devices=1``).

    Args:
        batch_size: Images per training batch.
        eval_batch_size: Images per batch of validation and test.
        augment: Whether training images are shifted by up to 4 pixels, and mirrored unless they are digits or
            letters; see :class:`CropAndFlip`. This is done on the training device, for whole batches.
        normalise: Whether each channel gets mean 0 and standard deviation 1 over the training images.
    """

    is_mirrored: ClassVar[bool] = False

    def __init__(
        self, batch_size: int = 60, eval_batch_size: int = 1000, augment: bool = False, normalise: bool = False
    ) -> None:
        super().__init__()
        self.batch_size = check_integer("batch_size", batch_size, 1, "batch_size=60")
        self.eval_batch_size = check_integer("eval_batch_size", eval_batch_size, 1, "eval_batch_size=1000")
        self.augment, self.normalise = augment, normalise
        self._splits: dict[str, Images] = {}
        self._transform: Callable[[Tensor], Tensor] | None = None

    @abstractmethod
    def load(self) -> dict[str, Images]:
        """Reads the images and labels.

        Returns:
            For train, val and test: images, ``uint8`` (n, height, width) or (n, channels, height, width), and
            labels, integers (n,).
        """

    def setup(self, stage: str | None = None) -> None:
        """Moves all images to the training device."""
        if self._splits:
            return
        device = self.trainer.strategy.root_device if self.trainer is not None else torch.device("cpu")
        if self.trainer is not None and self.trainer.world_size > 1:
            rank_zero_warn(
                f"{type(self).__name__} gives all {self.trainer.world_size} devices the same batches, which gains "
                "nothing. Write devices=1, or use a DataLoader."
            )
        splits = {split: (_with_channels(images), labels) for split, (images, labels) in self.load().items()}
        to_float = ToFloat.normalising(splits["train"][0]) if self.normalise else ToFloat()
        move = CropAndFlip(flip=self.is_mirrored)
        for split, (images, labels) in splits.items():
            images = images.to(device)
            if self.augment and split == "train":  # these stay bytes until their batch is made
                self._transform = lambda batch: to_float(move(batch))
            else:
                images = to_float(images)
            self._splits[split] = images, labels.to(device).long()

    def train_dataloader(self) -> TensorLoader:
        """Batches in a new order in each epoch."""
        return TensorLoader(*self._splits["train"], self.batch_size, shuffle=True, transform=self._transform)

    def val_dataloader(self) -> TensorLoader:
        """Held-out batches in a fixed order."""
        return TensorLoader(*self._splits["val"], self.eval_batch_size)

    def test_dataloader(self) -> TensorLoader:
        """Test batches in a fixed order."""
        return TensorLoader(*self._splits["test"], self.eval_batch_size)


def _with_channels(images: Tensor) -> Tensor:
    return images.unsqueeze(1) if images.dim() == 3 else images


class TorchvisionData(ImageData):
    """A data set of torchvision, with a part of its training images held out to validate.

    The split is shuffled but always the same.

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

    dataset: ClassVar[Any]
    source: ClassVar[str]

    def __init__(
        self,
        root: str | Path = "data",
        download: bool = True,
        batch_size: int = 60,
        eval_batch_size: int = 1000,
        augment: bool = False,
        normalise: bool = False,
        val_images: int = 5000,
        train_images: int | None = None,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, augment, normalise)
        self.root = Path(root).expanduser()
        self.download = download
        self.val_images = check_integer("val_images", val_images, 1, "val_images=5000")
        if train_images is not None:
            check_integer("train_images", train_images, 1, "train_images=10000")
        self.train_images = train_images

    def read(self, is_train: bool, download: bool = False) -> Any:
        """The training or the test set of torchvision."""
        return self.dataset(self.root, train=is_train, download=download)

    @property
    def folder(self) -> Path:
        """Where torchvision looks for the files."""
        return self.root / str(self.dataset.__name__) / "raw"

    def prepare_data(self) -> None:
        """Downloads missing files.

        Raises:
            ConfigurationError: A download fails.
        """
        if not self.download:
            return
        try:
            for is_train in (True, False):
                self.read(is_train, download=True)
        except (OSError, RuntimeError) as error:  # of the network, or of a checksum
            raise ConfigurationError(
                f"The files of {type(self).__name__} could not be downloaded ({first_line(error)}). Put those "
                f"from {self.source} into {self.folder}, and write download=False."
            ) from error

    def load(self) -> dict[str, Images]:
        """Reads torchvision's files; see :meth:`ImageData.load`.

        Raises:
            ConfigurationError: Files are missing, or there are not enough training images.
        """
        try:
            full, test = (self._tensors(self.read(is_train)) for is_train in (True, False))
        except RuntimeError as error:
            raise ConfigurationError(
                f"{self.folder} does not contain the data set ({first_line(error)}). Write download=True to "
                f"download it, or put the files from {self.source} there."
            ) from error
        images, labels = full
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
        wanted = self.val_images + (self.train_images or 1)
        if wanted > len(labels):
            raise ConfigurationError(
                f"val_images={self.val_images} and train_images={self.train_images} need {wanted} images or "
                f"more, but {self.folder} contains {len(labels)}. Write smaller numbers."
            )
        end = None if self.train_images is None else wanted
        val, train = order[: self.val_images], order[self.val_images : end]
        return {
            "train": (images[train], labels[train]),
            "val": (images[val], labels[val]),
            "test": test,
        }

    def _tensors(self, dataset: Any) -> Images:
        """The images and labels of a data set, as :meth:`ImageData.load` returns them."""
        return dataset.data, dataset.targets
