import torch
from torch import nn

from lightning_lottery.rewind import ModuleState


def test_everything_that_a_ticket_does_not_hold_returns():
    module = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    module.register_buffer("cache", torch.zeros(3), persistent=False)
    module.register_buffer("kept", torch.zeros(3))
    module[1].eval()
    state = ModuleState(module)

    module.cache = torch.ones(5)  # it has grown
    module.kept += 1
    module[0].weight.requires_grad_(False)
    module.train()
    state.restore(module)

    assert torch.equal(module.cache, torch.zeros(3))
    assert torch.equal(module.kept, torch.ones(3)), "persistent buffers belong to the ticket"
    assert module[0].weight.requires_grad
    assert not module[1].training
    assert module.training
    module.cache += 1
    state.restore(module)
    assert torch.equal(module.cache, torch.zeros(3)), "the saved values share memory with the module"
