"""Networks of the papers."""

from lightning_lottery.vision.networks.conv import Conv2, Conv4, Conv6
from lightning_lottery.vision.networks.mlp import MLP, LeNet300100
from lightning_lottery.vision.networks.resnet import CifarResNet, WideResNet
from lightning_lottery.vision.networks.vgg import CifarVGG
from lightning_lottery.vision.networks.vit import CifarViT

__all__ = ["MLP", "CifarResNet", "CifarVGG", "CifarViT", "Conv2", "Conv4", "Conv6", "LeNet300100", "WideResNet"]
