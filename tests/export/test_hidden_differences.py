"""Networks in which a difference is easily overlooked: the export equals the masked network on all inputs."""

import functools
import math

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from lightning_lottery import ConfigurationError, ExportError, Ticket
from lightning_lottery.export import compact

ROWS = torch.rand(32, 8, generator=torch.Generator().manual_seed(1)) - 0.5


class Two(nn.Module):
    """Two linear layers with something between them; half of the units between them have no input."""

    def __init__(self, after=torch.relu, bias=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.after = nn.Linear(8, 16), nn.Linear(16, 4), after
        with torch.no_grad():
            self.a.weight[:8] = 0
            self.a.bias[:8] = bias

    def forward(self, x):
        return self.b(self.after(self.a(x)))


def outputs(network, example):
    arguments = example if isinstance(example, tuple) else (example,)
    with torch.no_grad():
        return [tensor for tensor in tree_leaves(network(*arguments)) if isinstance(tensor, torch.Tensor)]


def check(network, example, *others, parameters):
    """Exports a network, and compares it with the network itself."""
    small = compact(network, Ticket.from_model(network), example)
    assert sum(p.numel() for p in small.parameters()) == parameters
    for inputs in (example, *others):
        for ours, theirs in zip(outputs(small, inputs), outputs(network.eval(), inputs), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5, equal_nan=True)


class Logits(Two):
    def forward(self, x):
        return super().forward(x).masked_fill(torch.tensor([False, False, True, True]), -1e9)


class Counted(Two):
    def forward(self, x):
        return {"logits": super().forward(x), "step": torch.tensor(1_000_000)}


class Complex(Two):
    def forward(self, x):
        logits = super().forward(x)
        return torch.complex(torch.ones_like(logits), logits)


@pytest.mark.parametrize("kind", [Two, Logits, Counted, Complex])
def test_large_outputs_beside_do_not_hide_a_difference(kind):
    check(kind(torch.relu), ROWS, parameters=108)
    check(kind(torch.sigmoid), ROWS, parameters=212)


class Masked(Two):
    def forward(self, x, mask):
        return self.b(torch.relu(self.a(x)) * mask.unsqueeze(-1))


class Gated(Two):
    def forward(self, x):
        return self.b(torch.relu(self.a(x)) * (x.abs().sum(-1, keepdim=True) > 0))


class Tokens(Two):
    def __init__(self, bias):
        super().__init__(bias=bias)
        self.embedding = nn.Embedding(20, 8)

    def forward(self, ids):
        return self.b(torch.relu(self.a(self.embedding(ids))) * (ids != 0).unsqueeze(-1)).mean(1)


def test_what_padding_switches_off_is_not_constant():
    check(Two(bias=1.0), ROWS, 5 * ROWS, parameters=108)
    words, mask = ROWS.view(4, 8, 8), torch.ones(4, 8, dtype=torch.bool)
    padded = mask.clone()
    padded[:, 3:] = False
    check(Masked(bias=1.0), (words, mask), (words, padded), parameters=212)
    check(Gated(bias=1.0), words, words * padded.unsqueeze(-1), parameters=212)
    ids = torch.arange(1, 19).view(3, 6)
    check(Tokens(bias=1.0), ids, ids % 3, parameters=372)


def test_a_linear_layer_that_is_called_by_keyword():
    class Named(Two):
        def forward(self, x):
            return self.b(input=torch.relu(self.a(input=x)))

    check(Named(bias=1.0), ROWS, parameters=108)


def scaled(layer, x):
    return 2 * nn.functional.relu(layer.own(x))


class Own(nn.Module):
    def own(self, x):
        return x + 1

    def forward(self, x):
        return torch.relu(x)


def test_a_forward_that_was_set_on_a_layer_is_kept():
    network = Two(after=Own())
    network.after.forward = torch.tanh
    check(network, ROWS, parameters=108)
    network = Two(after=Own())
    network.after.forward = functools.partial(scaled, network.after)
    check(network, ROWS, parameters=212)
    layer = network.after
    network.after.forward = lambda x: layer.own(x)
    with pytest.raises(ConfigurationError, match=r"The forward of a Own was replaced .* would call the original"):
        compact(network, Ticket.from_model(network), ROWS)


class OneOfTwo(Two):
    """Each sample takes one of two layers."""

    def __init__(self):
        super().__init__()
        self.c = nn.Linear(16, 4)

    def forward(self, x):
        hidden = torch.relu(self.a(x))
        takes_b = x[:, 0] > 0
        result = hidden.new_zeros(len(x), 4)
        for layer, rows in ((self.b, takes_b), (self.c, ~takes_b)):
            if bool(rows.any()):
                result[rows] = layer(hidden[rows])
        return result


class ByLength(Two):
    """Large batches take another layer."""

    def __init__(self):
        super().__init__()
        self.c = nn.Linear(16, 4)

    def forward(self, x):
        return (self.c if len(x) > 2 else self.b)(torch.relu(self.a(x)))


def test_layers_that_only_some_samples_take():
    by_side = torch.cat([ROWS[ROWS[:, 0] > 0], ROWS[ROWS[:, 0] <= 0]])  # the first samples take one of them
    check(OneOfTwo(), by_side, parameters=280)
    with pytest.raises(ExportError, match="nothing is exported"):
        check(ByLength(), ROWS, parameters=280)


def test_a_layer_that_the_example_does_not_reach_is_named():
    class Extra(Two):
        def __init__(self):
            super().__init__()
            self.c = nn.Linear(16, 4)

        def forward(self, x, extra=False):
            return (self.c if extra else self.b)(torch.relu(self.a(x)))

    with pytest.warns(UserWarning, match=r"The example does not reach c\.weight, .* may fail on inputs that do"):
        check(Extra(), ROWS, parameters=176)


class Centred(Two):
    def forward(self, x):
        return self.b(torch.relu(self.a(x) + x.mean(1, keepdim=True)))


def test_an_example_of_zeros_or_nothing_hides_no_difference():
    check(Centred(), torch.zeros(4, 8), ROWS, parameters=212)
    with pytest.raises(ConfigurationError, match=r"a tensor of shape \(0, 8\), which has no values"):
        compact(Two(), Ticket.from_model(Two()), torch.rand(0, 8))


class Coarse(nn.Linear):
    """Multiplies with few digits in single precision, as GPUs do with TensorFloat-32."""

    def forward(self, x):
        if x.dtype != torch.float32:
            return super().forward(x)
        product = x.bfloat16().float() @ self.weight.bfloat16().float().T
        return (product + self.bias).bfloat16().float()


def test_rounding_does_not_imitate_a_difference():
    network = nn.Sequential(Coarse(8, 300), nn.ReLU(), Coarse(300, 300), nn.ReLU(), Coarse(300, 4))
    with torch.no_grad():
        network[0].weight[:150] = 0
        network[0].bias[:150] = 1
    small = compact(network, Ticket.from_model(network), ROWS)
    assert small[0].out_features == 150


def test_precisions_and_types_of_parameters():
    class Constant(Two):
        def forward(self, x):
            return super().forward(x) * torch.ones(4, dtype=torch.float32)[:, None].T

    class Mixed(Two):
        def forward(self, x):
            return self.b(torch.relu(self.a(x))) @ torch.eye(4)  # only in single precision

    check(Constant(), ROWS, parameters=108)
    check(Mixed(), ROWS, parameters=108)
    check(Two().double(), ROWS.double(), parameters=108)
    counted = Two()
    counted.count = nn.Parameter(torch.tensor([1, 2]), requires_grad=False)
    check(counted, ROWS, parameters=110)
    small = compact(Two().bfloat16(), Ticket.from_model(Two().bfloat16()), ROWS.bfloat16())
    assert small.a.out_features == 8
    assert small.a.weight.dtype == torch.bfloat16


class Positions(Two):
    def forward(self, positions, x):
        return super().forward(x + positions)


class Logarithm(Two):
    def __init__(self, last):
        super().__init__()
        self.temperature, self.last = nn.Parameter(torch.full((1, 4), 2.0)), last

    def forward(self, x):
        return super().forward(x) * self.temperature.log() + self.last


def test_examples_and_values_that_not_every_network_takes():
    check(Positions(), (torch.rand(5, 8), torch.rand(3, 5, 8)), parameters=108)
    check(Logarithm(0.0), ROWS, parameters=112)
    check(Logarithm(torch.tensor([0.0, 0.0, 0.0, math.nan])), ROWS[:, :8], parameters=112)
    with pytest.raises(ExportError, match="contain no finite number"):
        check(Logarithm(math.nan), ROWS, parameters=112)


def test_a_normalisation_without_parameters_knows_its_size(recwarn):
    network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.InstanceNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3))
    with torch.no_grad():
        network[0].weight[:4] = 0
        network[0].bias[:4] = 0
    images = torch.rand(2, 1, 9, 9)
    small = compact(network, Ticket.from_model(network), images)
    assert small[1].num_features == 4
    small(images)
    assert not [warning for warning in recwarn if "num_features" in str(warning.message)]


def test_the_random_numbers_of_the_user_stay_as_they_are():
    class Noisy(Two):
        def forward(self, x):
            return super().forward(x) + torch.randn(4)

    network = Noisy()
    before = torch.get_rng_state()
    small = compact(network, Ticket.from_model(network), ROWS)
    assert torch.equal(torch.get_rng_state(), before)
    assert small.a.out_features == 8


def test_inference_mode_around_an_export():
    with torch.inference_mode():
        check(Two(), ROWS.clone(), parameters=108)
