"""What an export gains: sizes by hand, speed in words."""

import dataclasses
import io

import pytest
import torch
from torch import nn

from lightning_lottery import ConfigurationError, Ticket
from lightning_lottery.export import ExportReport, Latency, Measurement, compact
from lightning_lottery.export.measure import durations, flops, saved_bytes
from lightning_lottery.vision import LeNet300100


def lenet_and_ticket(kept):
    """LeNet with only some neurons of its hidden layers."""
    torch.manual_seed(0)
    network = LeNet300100().eval()
    masks = {name: torch.ones_like(p, dtype=torch.bool) for name, p in network.named_parameters() if p.dim() > 1}
    for mask, left in zip(list(masks.values())[1:], kept, strict=True):
        mask[:, left:] = False
    return network, Ticket(masks, dict(network.state_dict()))


def test_sizes_and_operations_are_those_computed_by_hand():
    network, ticket = lenet_and_ticket((30, 20))
    images = torch.rand(8, 1, 28, 28)
    small = compact(network, ticket, images)
    report = ExportReport.measure(network, ticket, small, images, batch_sizes=[4], turns=2, seconds=0.001)
    assert report.dense.parameters == 785 * 300 + 301 * 100 + 101 * 10
    assert report.exported.parameters == 785 * 30 + 31 * 20 + 21 * 10
    assert report.dense.flops == 2 * (784 * 300 + 300 * 100 + 100 * 10)
    assert report.exported.flops == 2 * (784 * 30 + 30 * 20 + 20 * 10)
    for measured, module in ((report.dense, network), (report.exported, small)):
        file = io.BytesIO()
        torch.save(module.state_dict(), file)
        assert measured.bytes == len(file.getvalue())
    assert report.difference < 1e-6
    assert list(report.speedup) == list(report.dense.latency) == [4]


def latencies(seconds):
    return dict.fromkeys((1, 32), Latency.of([0.9 * seconds, seconds, 1.1 * seconds]))


DENSE = Measurement(1000, 4000, 2000, latencies(0.02))
REPORT = ExportReport(DENSE, Measurement(250, 1000, 500, latencies(0.005)), {1: 4.0}, 3e-7)


def test_a_report_is_a_table_and_a_sentence():
    lines = str(REPORT).splitlines()
    assert [line.split() for line in lines[2:6]] == [
        ["parameters", "1,000", "250", "0.250"],
        ["bytes", "on", "disk", "4,000", "1,000", "0.250"],
        ["FLOPs", "per", "sample", "2,000", "500", "0.250"],
        [
            "latency,",
            "batch",
            "size",
            "1",
            "20",
            "ms",
            "(19",
            "to",
            "21)",
            "5",
            "ms",
            "(4.75",
            "to",
            "5.25)",
            "0.250",
        ],
    ]
    assert lines[-2:] == [
        "The exported network has 25.0% of the parameters, and is 4.0 x as fast at batch size 1.",
        "Largest difference of outputs: 3e-07 of the largest output.",
    ]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "The exported network has 25.0% of the parameters, and is 4.0 x as fast at batch size 1."),
        ({"speedup": {1: 1.5, 32: 2.25}}, "is 1.5 x as fast at batch size 1 and 2.2 x as fast at batch size 32."),
        (
            {"speedup": {1: 1.02}},
            "Nothing to gain in speed: the exported network has 25.0% of the parameters, but",
        ),
        ({"exported": DENSE, "speedup": {1: 1.2}}, "Nothing to gain: the ticket leaves no channel without use"),
    ],
)
def test_the_sentence_says_what_is_gained_or_that_nothing_is(changes, sentence):
    report = dataclasses.replace(REPORT, **changes)
    assert sentence in report.sentence
    assert report.sentence in str(report)


def test_a_dense_ticket_gains_nothing():
    network, ticket = lenet_and_ticket((300, 100))
    images = torch.rand(8, 1, 28, 28)
    small = compact(network, ticket, images)
    report = ExportReport.measure(network, ticket, small, images, turns=2, seconds=0.001)
    assert report.sentence.startswith("Nothing to gain: ")
    assert list(report.speedup) == [1, 32]


def test_latencies_are_quartiles():
    assert Latency.of([1, 2, 3, 4, 5]) == Latency(2, 3, 4)
    assert str(Latency.of([0.001, 0.0015, 0.002])) == "1.5 ms (1.25 to 1.75)"
    assert str(Latency(0.0995, 0.12345, 2.5)) == "123 ms (99.5 to 2,500)"


def test_networks_are_timed_in_turns_and_called_with_the_example():
    calls = []

    class Counts(nn.Module):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def forward(self, inputs):
            assert not torch.is_grad_enabled()
            calls.append((self.name, tuple(inputs.shape)))

    times = durations([Counts("a"), Counts("b")], torch.rand(3, 2), turns=2, seconds=1e-9)
    assert [len(own) for own in times] == [2, 2]
    assert all(seconds > 0 for own in times for seconds in own)
    assert {shape for _, shape in calls} == {(3, 2)}
    order = "".join(name for name, _ in calls)
    assert order.rstrip("ab") == ""
    assert order.endswith("b")
    assert "ab" in order[-8:]


def test_operations_of_convolutions():
    network = nn.Conv2d(3, 5, 3, padding=1)
    assert flops(network, torch.rand(1, 3, 8, 8)) == 2 * 5 * 3 * 9 * 64
    assert saved_bytes(network) > 4 * (5 * 3 * 9 + 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_sizes": 32}, r"batch_sizes=32 is not a list. Write for example batch_sizes=\[1, 32\]"),
        ({"batch_sizes": [0]}, "batch_sizes=0 must be"),
        ({"batch_sizes": [1.5]}, "batch_sizes=1.5"),
        ({"batch_sizes": []}, r"batch_sizes=\[\] times nothing"),
        ({"turns": 1}, "turns=1 must be"),
        ({"seconds": "long"}, "seconds='long' must be a number above 0"),
        ({"exported": 3}, r"exported=3 is not a network. Write compact\(...\) first"),
        ({"example": torch.empty(0, 784)}, r"shape \(0, 784\), which has no values"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    network, ticket = lenet_and_ticket((300, 100))
    with pytest.raises(ConfigurationError, match=message):
        ExportReport.measure(
            network, ticket, **{"exported": network, "example": torch.rand(2, 1, 28, 28), **arguments}
        )


def test_measuring_draws_no_random_number():
    network, ticket = lenet_and_ticket((300, 100))
    network.register_forward_hook(lambda network, inputs, logits: logits + torch.rand(10))
    before = torch.get_rng_state()
    ExportReport.measure(network, ticket, network, torch.rand(2, 1, 28, 28, generator=torch.Generator()), turns=2)
    assert torch.equal(torch.get_rng_state(), before)
