"""Networks, data and schedules of the papers, for experiments and examples. Only commands use them."""

from lightning_lottery.vision.classifier import Classifier
from lightning_lottery.vision.data import (
    CIFAR10,
    CIFAR100,
    EMNIST,
    KMNIST,
    MNIST,
    MNIST5000,
    SVHN,
    CropAndFlip,
    FashionMNIST,
    TensorLoader,
    ToFloat,
)
from lightning_lottery.vision.networks import (
    MLP,
    CifarResNet,
    CifarVGG,
    CifarViT,
    Conv2,
    Conv4,
    Conv6,
    LeNet300100,
    WideResNet,
)
from lightning_lottery.vision.recipes import RECIPE_PREFIX, Recipe, expand_recipes, recipe, recipes
from lightning_lottery.vision.schedules import WarmUpAndDrops

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "EMNIST",
    "KMNIST",
    "MLP",
    "MNIST",
    "MNIST5000",
    "RECIPE_PREFIX",
    "SVHN",
    "CifarResNet",
    "CifarVGG",
    "CifarViT",
    "Classifier",
    "Conv2",
    "Conv4",
    "Conv6",
    "CropAndFlip",
    "FashionMNIST",
    "LeNet300100",
    "Recipe",
    "TensorLoader",
    "ToFloat",
    "WarmUpAndDrops",
    "WideResNet",
    "expand_recipes",
    "recipe",
    "recipes",
]
