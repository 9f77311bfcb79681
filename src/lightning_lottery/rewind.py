"""What a network returns to before every round, besides the weights that a ticket holds."""

import torch
from torch import Tensor, nn


class ModuleState:
    """What a ticket does not carry: non-persistent buffers, ``requires_grad`` and ``training`` flags.

    Args:
        module: The network, in the state to return to.
    """

    def __init__(self, module: nn.Module) -> None:
        saved = module.state_dict().keys()
        self._buffers: dict[str, Tensor] = {
            name: buffer.detach().clone() for name, buffer in module.named_buffers() if name not in saved
        }
        self._requires_grad = {name: p.requires_grad for name, p in module.named_parameters()}
        self._training = {name: layer.training for name, layer in module.named_modules()}

    @torch.no_grad()
    def restore(self, module: nn.Module) -> None:
        """Puts everything back in place.

        Args:
            module: The network that the state was taken from.
        """
        for name, buffer in module.named_buffers():
            if name in self._buffers:
                buffer.data = self._buffers[name].clone()  # not copy_: a cache may have grown since
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(self._requires_grad.get(name, parameter.requires_grad))
        for name, layer in module.named_modules():
            layer.training = self._training.get(name, layer.training)
