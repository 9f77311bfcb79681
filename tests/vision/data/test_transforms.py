"""Transforms of whole batches, against those of torchvision for single images."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms

from lightning_lottery import ConfigurationError
from lightning_lottery.vision import CropAndFlip, ToFloat

MEAN, DEVIATION = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)


def images(count, channels=3, size=8):
    return torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8)


def test_numbers_are_bit_equal_to_those_of_torchvision():
    batch = images(20)
    single = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, DEVIATION)])
    expected = torch.stack([single(Image.fromarray(image.permute(1, 2, 0).numpy())) for image in batch])
    assert torch.equal(ToFloat(MEAN, DEVIATION)(batch), expected)
    assert torch.equal(ToFloat()(batch), batch / 255)


def test_normalising_gives_mean_0_and_deviation_1():
    batch = images(50) // torch.tensor([1, 3, 7], dtype=torch.uint8).view(3, 1, 1)
    made = ToFloat.normalising(batch)
    pixels = np.moveaxis(batch.numpy(), 1, 0).reshape(3, -1) / 255
    assert made.mean == pytest.approx(pixels.mean(1))
    assert made.deviation == pytest.approx(pixels.std(1))
    normalised = made(batch).double()
    assert normalised.mean((0, 2, 3)).tolist() == pytest.approx([0] * 3, abs=1e-5)
    assert normalised.std((0, 2, 3), unbiased=False).tolist() == pytest.approx([1] * 3)


@given(
    st.integers(0, 5), st.booleans(), st.integers(1, 6), st.integers(3, 9), st.integers(3, 9), st.integers(0, 99)
)
def test_each_image_is_one_of_the_crops(padding, flip, count, height, width, seed):
    """Found among all crops of torchvision's padding, mirrored or not."""
    torch.manual_seed(seed)
    batch = torch.randint(1, 256, (count, 2, height, width), dtype=torch.uint8)
    made = CropAndFlip(padding, flip)(batch)
    assert made.shape == batch.shape
    assert made.dtype == batch.dtype
    padded = transforms.functional.pad(batch, [padding] * 4)
    for original, changed in zip(padded, made, strict=True):
        crops = [
            original[:, top : top + height, left : left + width]
            for top in range(2 * padding + 1)
            for left in range(2 * padding + 1)
        ]
        crops += [crop.flip(-1) for crop in crops] if flip else []
        assert any(torch.equal(changed, crop) for crop in crops)


def test_places_and_directions_are_uniform_and_independent_between_images():
    count, padding = 20_000, 2
    # The pixel in the middle of a 5 x 5 image; the one to its right tells whether the image is mirrored.
    batch = torch.zeros(count, 1, 5, 5, dtype=torch.uint8)
    batch[:, :, 2, 2], batch[:, :, 2, 3] = 1, 2
    made = CropAndFlip(padding)(batch)[:, 0]
    which, rows, columns = (made == 1).nonzero(as_tuple=True)
    assert torch.equal(which, torch.arange(count)), "the pixel in the middle is never cut off"
    counts = torch.bincount(rows * 5 + columns, minlength=25)
    assert len(counts) == 25
    expected = count / 25
    assert float(((counts - expected) ** 2 / expected).sum()) < 52  # chi-squared, 24 degrees: 0.1 % are above
    right = torch.nn.functional.pad(made, (0, 1))[which, rows, columns + 1] == 2
    left = torch.nn.functional.pad(made, (1, 0))[which, rows, columns] == 2
    assert abs(float(left.sum() / (left | right).sum()) - 0.5) < 0.02
    for lag in (rows, columns):
        pairs = torch.stack([lag[:-1], lag[1:]]).double()
        assert abs(float(torch.corrcoef(pairs)[0, 1])) < 0.03


def test_random_numbers_come_from_the_global_generator():
    batch = images(10)
    torch.manual_seed(3)
    first, second = CropAndFlip()(batch), CropAndFlip()(batch)
    torch.manual_seed(3)
    assert torch.equal(CropAndFlip()(batch), first)
    assert not torch.equal(first, second)


def test_nothing_moves_without_padding_and_flips():
    batch = images(4)
    assert torch.equal(CropAndFlip(0, flip=False)(batch), batch)


def test_invalid_arguments():
    with pytest.raises(ConfigurationError, match="padding=-1 must be an integer of at least 0"):
        CropAndFlip(-1)
    constant = torch.stack([images(5)[:, 0], torch.full((5, 8, 8), 7, dtype=torch.uint8)], 1)
    with pytest.raises(ConfigurationError, match="Channel 1 has the same value in all images"):
        ToFloat.normalising(constant)
