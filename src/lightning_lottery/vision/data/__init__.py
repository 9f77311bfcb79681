"""Data modules, whose images stay on the training device."""

from lightning_lottery.vision.data.cifar import CIFAR10, CIFAR100, SVHN
from lightning_lottery.vision.data.loader import TensorLoader
from lightning_lottery.vision.data.mnist import EMNIST, KMNIST, MNIST, MNIST5000, FashionMNIST
from lightning_lottery.vision.data.transforms import CropAndFlip, ToFloat

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "EMNIST",
    "KMNIST",
    "MNIST",
    "MNIST5000",
    "SVHN",
    "CropAndFlip",
    "FashionMNIST",
    "TensorLoader",
    "ToFloat",
]
