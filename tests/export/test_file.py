"""Networks as files: they load with the same outputs, or nothing is written."""

from pathlib import Path

import pytest
import torch
from torch import nn

from lightning_lottery import ConfigurationError, ExportError
from lightning_lottery.export import SparseLinear, check_can_be_saved, save_network
from tests.helpers.fits import Net


def test_a_network_is_written_and_loads():
    network, images = Net().eval(), torch.rand(3, 784)
    network.hidden = SparseLinear(network.hidden.weight * (torch.rand(24, 256) < 0.1), network.hidden.bias)
    check_can_be_saved(network)
    save_network(network, Path("folder/net.pt"), images)
    loaded = torch.load("folder/net.pt", weights_only=False)
    assert torch.equal(loaded(images), network(images))
    assert not loaded.training
    assert [path.name for path in Path("folder").iterdir()] == ["net.pt"]


class Forgets(nn.Module):
    """Loses an attribute when it is pickled."""

    def __init__(self):
        super().__init__()
        self.inner, self.factor = nn.Linear(4, 3), 2.0

    def forward(self, inputs):
        return self.inner(inputs) * getattr(self, "factor", 1.0)

    def __getstate__(self):
        return {name: value for name, value in vars(self).items() if name != "factor"}


def test_a_network_that_loads_differently_is_not_written():
    Path("net.pt").write_text("old")
    with pytest.raises(ExportError, match="Forgets has other outputs when it is loaded again"):
        save_network(Forgets().eval(), Path("net.pt"), torch.rand(2, 4))
    assert Path("net.pt").read_text() == "old"
    assert len(list(Path.cwd().iterdir())) == 1


def test_a_network_that_cannot_be_pickled_is_refused():
    network = nn.Linear(4, 3)
    network.activation = lambda inputs: inputs
    with pytest.raises(ConfigurationError, match=r"Linear cannot be pickled: .* or write an ONNX file"):
        check_can_be_saved(network)
