"""The best form: chosen by measured speed, never slower than dense, with a reason for what is left out."""

import builtins
import math
from importlib import import_module

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lightning_lottery import ConfigurationError, ExportError, Ticket, TicketError
from lightning_lottery.export import Measurement, SparseLinear, Speedup, best
from lightning_lottery.export.best import fastest
from lightning_lottery.vision import LeNet300100
from tests.helpers.fits import Net
from tests.helpers.tickets import ticket_of

MEASUREMENT, SPARSE = (import_module(f"lightning_lottery.export.{name}") for name in ("measurement", "sparse"))


def form(bytes, *speedups):
    """With the same speedup in all turns, or with its quartiles."""
    quartiles = [ratio if isinstance(ratio, tuple) else (ratio, ratio, ratio) for ratio in speedups]
    return Measurement(1, bytes, 1, {}, {size: Speedup(*q) for size, q in enumerate(quartiles)}, 0.0)


@pytest.mark.parametrize(
    ("forms", "kept"),
    [
        ({"dense": form(100, 1)}, "dense"),
        ({"dense": form(100, 1), "compact": form(50, 2), "sparse": form(20, 3)}, "sparse"),
        ({"dense": form(100, 1), "compact": form(50, 3), "sparse": form(20, 2)}, "compact"),
        # equally fast up to noise: the smallest
        ({"dense": form(100, 1), "compact": form(50, 2.05), "sparse": form(20, 2)}, "sparse"),
        ({"dense": form(100, 1), "compact": form(50, 1.0)}, "compact"),
        ({"dense": form(100, 1), "sparse": form(150, 1.03)}, "dense"),
        ({"dense": form(100, 1), "compact": form(50, 0.9)}, "dense"),
        # slower than dense at one batch size
        ({"dense": form(100, 1, 1), "compact": form(50, 1.2, 1.2), "sparse": form(20, 0.8, 9)}, "compact"),
        ({"dense": form(100, 1, 1), "sparse": form(20, 0.96, 9)}, "sparse"),
        ({"dense": form(100, 1, 1), "sparse": form(20, (0.8, 0.9, 1.1), 9)}, "sparse"),
        # not faster in three of four turns
        ({"dense": form(100, 1), "sparse": form(120, (0.9, 1.5, 2))}, "dense"),
        ({"dense": form(100, 1), "sparse": form(80, (0.9, 1.5, 2))}, "sparse"),
    ],
)
def test_the_smallest_of_the_fastest_is_kept(forms, kept):
    assert fastest(forms) == kept


ratios = st.lists(st.floats(0.1, 10), min_size=2, max_size=2)


@given(st.lists(st.tuples(st.integers(1, 200), ratios), max_size=3))
def test_what_is_kept_is_never_slower_than_dense_and_close_to_the_fastest(others):
    forms = {"dense": form(100, 1, 1)}
    forms |= {str(place): form(size, *speedups) for place, (size, speedups) in enumerate(others)}
    kept = fastest(forms)
    medians = {name: [ratio.median for ratio in f.speedup.values()] for name, f in forms.items()}
    assert min(medians[kept]) > 1 / 1.05
    allowed = {name: f for name, f in forms.items() if min(medians[name]) > 1 / 1.05}
    products = {name: math.prod(m if m >= 1.05 else 1 for m in medians[name]) for name in allowed}
    assert products[kept] * 1.05**2 >= max(products.values()) * 0.999
    smaller = [name for name, f in allowed.items() if f.bytes < forms[kept].bytes]
    assert all(products[name] * 1.05**2 <= max(products.values()) * 1.001 for name in smaller)


@pytest.fixture
def times(monkeypatch):
    """Sets the seconds of a network by its kind: dense or sparse, with or without all channels."""
    seconds = {"dense": 1.0, "compact": 0.5, "sparse": 0.25, "compact and sparse": 0.1}

    def kind(network):
        layers = [layer for layer in network.modules() if isinstance(layer, (nn.Linear, SparseLinear))]
        is_sparse = any(isinstance(layer, SparseLinear) for layer in layers)
        is_compact = len(layers) == 3 and layers[0].out_features < 300
        return {(0, 0): "dense", (1, 0): "compact", (0, 1): "sparse", (1, 1): "compact and sparse"}[
            is_compact, is_sparse
        ]

    def durations(modules, example, turns, least):
        return [[seconds[kind(module)]] * turns for module in modules]

    for module in (MEASUREMENT, SPARSE):
        monkeypatch.setattr(module, "durations", durations)
    return seconds


def lenet():
    torch.manual_seed(0)
    network = LeNet300100().eval()
    return network, ticket_of(network, 0.004)


def test_all_forms_are_measured_and_the_fastest_is_returned(digits, times):
    network, ticket = lenet()
    images = digits[0][:30]
    made, report = best(network, ticket, images)
    assert list(report.forms) == ["dense", "compact", "sparse", "compact and sparse"]
    assert report.kept == "compact and sparse"
    found = {name: measured.speedup[30].median for name, measured in report.forms.items()}
    assert found == {"dense": 1.0, "compact": 2.0, "sparse": 4.0, "compact and sparse": 10.0}
    assert made.layers[1].out_features < 300
    assert all(isinstance(made.layers[place], SparseLinear) for place in (1, 3, 5))
    values = {n: t * ticket.masks[n] if n in ticket.masks else t for n, t in network.state_dict().items()}
    expected = torch.func.functional_call(network, values, digits[0])
    with torch.no_grad():
        assert torch.allclose(made(digits[0]), expected, atol=1e-5)
    assert report.difference < 1e-5
    kept = ticket.kept + 300 + 100 + 10
    assert report.forms["sparse"].parameters == kept
    assert report.forms["compact and sparse"].parameters < kept
    assert "compact and sparse (kept)" in str(report)
    assert report.left_out == {}


@pytest.mark.parametrize("name", ["compact", "sparse", "dense"])
def test_another_form_can_be_the_fastest(digits, times, name):
    network, ticket = lenet()
    times |= dict.fromkeys(times, 2.0) | {name: 0.9}
    made, report = best(network, ticket, digits[0][:30], batch_sizes=[1, 60], turns=2)
    assert report.kept == name
    assert list(report.speedup) == [1, 60]
    if name == "dense":
        assert report.sentence.startswith("Nothing to gain: ")
        assert not any(isinstance(layer, SparseLinear) for layer in made.modules())
        assert not made.layers[1].weight[~ticket.masks["layers.1.weight"]].any()


def test_forms_without_a_difference_are_left_out_with_the_reason(digits):
    network = LeNet300100()
    _, report = best(network, ticket_of(network, 0.9), digits[0][:30], turns=2, seconds=0.001)
    assert report.kept == "dense"
    assert report.left_out == {
        "compact": "All channels are still used.",
        "sparse": "No linear layer is faster when it is sparse, with the same outputs.",
    }
    assert report.sentence.startswith("Nothing to gain: ")
    assert "Left out: compact. All channels are still used." in str(report)


def test_without_torch_pruning_the_compact_form_is_left_out(digits, times, monkeypatch):
    original = builtins.__import__

    def without(name, *arguments, **named):
        if name == "torch_pruning":
            raise ImportError("not installed")
        return original(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    network, ticket = lenet()
    _, report = best(network, ticket, digits[0][:30])
    assert list(report.forms) == ["dense", "sparse"]
    assert 'pip install "lightning-lottery[structured]"' in report.left_out["compact"]


def test_a_network_that_cannot_be_traced_is_only_made_sparse(times):
    class Untraceable(nn.Module):
        """Leaves the graph of gradients."""

        def __init__(self):
            super().__init__()
            self.hidden = nn.Linear(8, 8)

        def forward(self, inputs):
            return torch.from_numpy(self.hidden(inputs).detach().numpy() ** 2)

    network = Untraceable()
    made, report = best(network, ticket_of(network), torch.randn(3, 8))
    assert isinstance(made.hidden, SparseLinear)
    assert "cannot trace Untraceable" in report.left_out["compact"]


@pytest.mark.parametrize("error", [ExportError("The outputs differ by 0.1."), RuntimeError("It broke.")])
def test_a_form_that_fails_is_left_out_with_the_reason(times, monkeypatch, error):
    def fails(*arguments):
        raise error

    monkeypatch.setattr(import_module("lightning_lottery.export.best"), "compacted", fails)
    network, ticket = lenet()
    _, report = best(network, ticket, torch.rand(3, 784))
    assert report.left_out == {"compact": str(error)}
    assert list(report.forms) == ["dense", "sparse"]


class ByBatchSize(nn.Module):
    """Depends on the number of its channels, and calls another layer, but only in large batches."""

    def __init__(self):
        super().__init__()
        self.hidden, self.output, self.other = nn.Linear(80, 60), nn.Linear(60, 5), nn.Linear(60, 5)

    def forward(self, inputs):
        hidden = self.hidden(inputs).relu()
        if len(inputs) > 4:
            return self.other(hidden) * hidden.shape[1]
        return self.output(hidden)


def test_forms_must_agree_at_all_batch_sizes(times):
    torch.manual_seed(0)
    network, inputs = ByBatchSize(), torch.randn(4, 80)
    masks = {name: torch.rand(p.shape) < 0.3 for name, p in network.named_parameters() if p.dim() > 1}
    masks["hidden.weight"][:30] = False
    for name in ("output.weight", "other.weight"):
        masks[name][:, :30] = False
    ticket = Ticket.from_masks(masks, network)
    _, report = best(network, ticket, inputs, batch_sizes=[4])
    assert "compact" in report.forms
    made, report = best(network, ticket, inputs, batch_sizes=[4, 8])
    assert list(report.forms) == ["dense", "sparse"]
    assert report.left_out == {"compact": "Its outputs differ at these batch sizes."}
    assert isinstance(made.hidden, SparseLinear)
    assert type(made.output) is type(made.other) is nn.Linear, "not every batch size reaches them"


def test_calls_leave_nothing_in_the_result(times):
    class Remembers(nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden, self.cache = nn.Linear(8, 8), None
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, inputs):
            self.calls += 1
            self.cache = torch.ones(8) if self.cache is None else self.cache
            return self.hidden(inputs) * self.cache

    network = Remembers()
    made, _ = best(network, ticket_of(network), torch.randn(3, 8))
    assert isinstance(made.hidden, SparseLinear)
    assert (int(made.calls), made.cache) == (0, None)


def test_bad_input_is_refused():
    network = Net()
    ticket, images = ticket_of(network), torch.rand(4, 784)
    with pytest.raises(TicketError, match="does not fit the network"):
        best(LeNet300100(), ticket, images)
    with pytest.raises(ConfigurationError, match=r"Calling Net on an example .* \(2, 3\) failed"):
        best(network, ticket, torch.rand(2, 3))
    for arguments, message in [
        ({"batch_sizes": []}, r"batch_sizes=\[\] times nothing"),
        ({"batch_sizes": 60}, r"batch_sizes=60 is not a list"),
        ({"turns": 1}, "turns=1 must be"),
        ({"seconds": 0}, "seconds=0 must be a number above 0"),
    ]:
        with pytest.raises(ConfigurationError, match=message):
            best(network, ticket, images, **arguments)


def test_the_network_is_not_changed_and_no_random_number_is_drawn(digits):
    network, ticket = lenet()
    network.train()
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state = torch.get_rng_state()
    made, _ = best(network, Ticket(ticket.masks, ticket.weights), digits[0][:30], turns=2, seconds=0.001)
    assert torch.equal(torch.get_rng_state(), state)
    assert network.training
    assert not made.training
    assert all(torch.equal(weights[name], tensor) for name, tensor in network.state_dict().items())
