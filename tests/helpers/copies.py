"""LightningModules that hold copies of their own weights."""

import copy

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tests.helpers.fits import Model


class Momentum(Model):
    """A teacher that follows the student, as in BYOL and MoCo."""

    def __init__(self, frozen=True, momentum=0.9, network=None):
        super().__init__(network)
        self.teacher = copy.deepcopy(self.network)
        if frozen:
            self.teacher.requires_grad_(False)
        self.momentum = momentum

    def configure_optimizers(self):
        return torch.optim.SGD(self.network.parameters(), lr=0.1, momentum=0.9)

    @torch.no_grad()
    def on_train_batch_end(self, *_):
        for slow, fast in zip(self.teacher.parameters(), self.network.parameters(), strict=True):
            slow.mul_(self.momentum).add_(fast, alpha=1 - self.momentum)

    def validation_step(self, batch, batch_idx):
        images, labels = batch
        self.log("val_acc", (self.teacher(images).argmax(1) == labels).float().mean(), batch_size=len(labels))


class Averaged(Model):
    """An average of weights inside the module, as for diffusion models. Nothing is frozen."""

    def __init__(self, late=False):
        super().__init__()
        self.average = AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
        if late:  # as if weights were loaded into the network only
            nn.init.normal_(self.network.hidden.weight)

    def configure_optimizers(self):
        return torch.optim.Adam(self.network.parameters(), lr=0.01)

    def on_before_zero_grad(self, *_):
        if self.global_step:
            self.average.update_parameters(self.network)
