"""Models and data for the demo and the examples. Nothing else in the package uses them."""

from lightning_lottery.vision.classifier import Classifier
from lightning_lottery.vision.data import MNIST, MNIST5000, FashionMNIST, TensorLoader
from lightning_lottery.vision.networks import MLP, LeNet300100

__all__ = ["MLP", "MNIST", "MNIST5000", "Classifier", "FashionMNIST", "LeNet300100", "TensorLoader"]
