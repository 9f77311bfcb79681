"""The data loader over tensors."""

import pytest
import torch

from lightning_lottery import ConfigurationError
from lightning_lottery.vision import TensorLoader


def test_the_loader_gives_every_image_once_with_its_label():
    images, labels = torch.arange(23.0).view(23, 1), torch.arange(23)
    for shuffle in (False, True):
        loader = TensorLoader(images, labels, batch_size=5, shuffle=shuffle)
        batches = list(loader)
        assert len(batches) == len(loader) == 5
        assert [len(batch[1]) for batch in batches] == [5, 5, 5, 5, 3]
        seen = torch.cat([batch[1] for batch in batches])
        assert torch.equal(torch.cat([batch[0] for batch in batches]).flatten().long(), seen)
        assert sorted(seen.tolist()) == list(range(23))
        assert (seen.tolist() == list(range(23))) is not shuffle


def test_the_loader_draws_a_new_order_each_pass_from_the_global_generator():
    loader = TensorLoader(torch.rand(50, 1), torch.arange(50), batch_size=50, shuffle=True)
    torch.manual_seed(1)
    first, second = (next(iter(loader))[1] for _ in range(2))
    torch.manual_seed(1)
    assert torch.equal(next(iter(loader))[1], first)
    assert not torch.equal(first, second)


def test_a_transform_sees_the_images_of_each_batch():
    loader = TensorLoader(torch.arange(5.0).view(5, 1), torch.arange(5), batch_size=2, transform=lambda x: -x)
    for images, labels in loader:
        assert torch.equal(images.flatten(), -labels.float())


def test_the_loader_refuses_invalid_arguments():
    with pytest.raises(ConfigurationError, match="There are 3 images but 2 labels"):
        TensorLoader(torch.rand(3, 1), torch.arange(2), 1)
    with pytest.raises(ConfigurationError, match="batch_size=0"):
        TensorLoader(torch.rand(3, 1), torch.arange(3), 0)
