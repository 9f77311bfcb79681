"""A data loader over tensors that stay on the training device."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

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
        transform: Is called with the images of every batch, such as :class:`ToFloat` or :class:`CropAndFlip`.

    Raises:
        ConfigurationError: The numbers of images and labels differ, or the batch size is below 1.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        batch_size: int,
        shuffle: bool = False,
        transform: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if len(images) != len(labels):
            raise ConfigurationError(
                f"There are {len(images)} images but {len(labels)} labels; pass one label per image."
            )
        self.images, self.labels = images, labels
        self.batch_size = check_integer("batch_size", batch_size, 1, "batch_size=60")
        self.shuffle = shuffle
        self.transform = transform

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def __iter__(self) -> Iterator[Images]:
        for images, labels in self._batches():
            yield (images if self.transform is None else self.transform(images)), labels

    def _batches(self) -> Iterator[Images]:
        if self.shuffle:
            order = torch.randperm(len(self.images), device=self.images.device)
            for index in torch.split(order, self.batch_size):
                yield self.images[index], self.labels[index]
        else:
            images, labels = (torch.split(tensor, self.batch_size) for tensor in (self.images, self.labels))
            yield from zip(images, labels, strict=True)
