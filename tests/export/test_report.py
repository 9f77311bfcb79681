"""What an export gains: sizes by hand, speed in words."""

import io
import json

import pytest
import torch
from torch import nn

from lightning_lottery import ConfigurationError, Ticket
from lightning_lottery.export import ExportReport, Latency, Measurement, Speedup, compact
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


def measured(scale, ratios, difference=3e-7):
    """A form with 1,000 parameters times a scale, and the same speedup in all turns, by batch size."""
    latency = {size: Latency(0.018 / ratio, 0.02 / ratio, 0.022 / ratio) for size, ratio in ratios.items()}
    speedup = {size: Speedup(ratio, ratio, ratio) for size, ratio in ratios.items()}
    amounts = (int(amount * scale) for amount in (1000, 4000, 2000))
    return Measurement(*amounts, latency, speedup, difference)


DENSE = measured(1, {1: 1.0, 32: 1.0}, 0.0)
REPORT = ExportReport({"dense": DENSE, "compact": measured(0.25, {1: 4.0, 32: 2.5})}, "compact")


def test_a_report_is_a_table_and_a_sentence():
    assert str(REPORT).splitlines() == [
        "                                   dense              compact",
        "-------------------------------------------------------------",
        "parameters                         1,000          250 (25.0%)",
        "bytes on disk                      4,000        1,000 (25.0%)",
        "FLOPs per sample                   2,000          500 (25.0%)",
        "latency, batch size 1   20 ms (18 to 22)    5 ms (4.5 to 5.5)",
        "  times as fast                           4.00 (4.00 to 4.00)",
        "latency, batch size 32  20 ms (18 to 22)    8 ms (7.2 to 8.8)",
        "  times as fast                           2.50 (2.50 to 2.50)",
        "difference of outputs                                   3e-07",
        "",
        REPORT.sentence,
    ]


def test_a_report_of_several_forms_says_which_was_kept_and_what_was_left_out():
    forms = {**REPORT.forms, "sparse": measured(0.5, {1: 0.5, 32: 3.0})}
    text = str(ExportReport(forms, "compact", {"both": "It fails."}))
    assert "compact (kept)" in text
    assert text.splitlines()[-1] == "Left out: both. It fails."


def test_a_report_as_json():
    ratios = {"1": {"low": 4.0, "median": 4.0, "high": 4.0}, "32": {"low": 2.5, "median": 2.5, "high": 2.5}}
    given = json.loads(json.dumps(REPORT.to_json()))
    assert given["kept"] == "compact"
    assert given["sentence"] == REPORT.sentence
    assert given["left_out"] == {}
    assert list(given["forms"]) == ["dense", "compact"]
    assert given["forms"]["compact"] == {
        "parameters": 250,
        "bytes": 1000,
        "flops": 500,
        "difference": 3e-7,
        "speedup": ratios,
        "latency": {
            "1": {"low": 0.0045, "median": 0.005, "high": 0.0055},
            "32": {"low": 0.0072, "median": 0.008, "high": pytest.approx(0.0088)},
        },
    }


GAINED = "The compact network has 25.0% of the parameters, and is"
SMALLER = "Nothing to gain in speed: the compact network has 25.0% of the parameters, but is not measurably faster"


@pytest.mark.parametrize(
    ("scale", "ratios", "sentence"),
    [
        (0.25, {1: 4.0}, f"{GAINED} 4.0 x as fast at batch size 1."),
        (0.25, {1: 1.5, 32: 2.5}, f"{GAINED} 1.5 x as fast at batch size 1 and 2.5 x as fast at batch size 32."),
        (
            0.25,
            {1: 0.5, 32: 2.0},
            f"{GAINED} 2.0 x as fast at batch size 32; it is only 0.5 x as fast at batch size 1.",
        ),
        (0.25, {1: 1.02}, f"{SMALLER} here."),
        (0.25, {1: 0.5}, f"{SMALLER} here; it is only 0.5 x as fast at batch size 1."),
        (1, {1: 1.2}, "The compact network has as many parameters, and is 1.2 x as fast at batch size 1."),
        (
            1,
            {1: 1.0},
            "Nothing to gain: the compact network has as many parameters, but is not measurably faster here.",
        ),
    ],
)
def test_the_sentence_says_what_is_gained_or_that_nothing_is(scale, ratios, sentence):
    dense = measured(1, dict.fromkeys(ratios, 1.0), 0.0)
    report = ExportReport({"dense": dense, "compact": measured(scale, ratios)}, "compact")
    assert report.sentence == sentence
    assert report.sentence in str(report)


def test_the_sentence_about_the_dense_network():
    assert ExportReport({"dense": DENSE}, "dense").sentence == (
        "Nothing to gain: masks alone make a network neither smaller nor faster."
    )
    assert "times as fast" not in str(ExportReport({"dense": DENSE}, "dense"))
    assert ExportReport({"dense": DENSE}, "dense", {"compact": "It fails."}).sentence == (
        "Nothing to gain: no other form is of use here."
    )
    assert ExportReport(REPORT.forms, "dense").sentence == (
        "Nothing to gain: on this machine, no other form of the network is faster than the dense one."
    )


@pytest.mark.parametrize(
    ("quartiles", "is_faster", "is_slower"),
    [
        ((1.01, 1.05, 1.1), True, False),
        ((0.99, 1.5, 2.0), False, False),
        ((1.01, 1.04, 1.1), False, False),
        ((0.9, 0.95, 0.99), False, True),
        ((0.5, 0.7, 1.01), False, False),
        ((0.9, 0.96, 0.99), False, False),
    ],
)
def test_what_may_be_noise_is_neither_faster_nor_slower(quartiles, is_faster, is_slower):
    speedup = Speedup(*quartiles)
    assert (speedup.is_faster, speedup.is_slower) == (is_faster, is_slower)


def test_a_dense_ticket_gains_nothing(monkeypatch):
    monkeypatch.setattr(
        "lightning_lottery.export.measurement.durations",
        lambda modules, example, turns, seconds: [[0.1] * turns] * 2,
    )
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
        (
            {"exported": nn.Sequential(nn.Flatten(), nn.Linear(784, 5))},
            "exported has outputs of other shapes than",
        ),
        ({"exported": nn.Linear(9, 5)}, "Calling Linear on an example .* failed"),
        ({"example": torch.rand(2, 3)}, r"Calling LeNet300100 on an example .* failed"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    network, ticket = lenet_and_ticket((300, 100))
    with pytest.raises(ConfigurationError, match=message):
        ExportReport.measure(
            network, ticket, **{"exported": network, "example": torch.rand(2, 1, 28, 28), **arguments}
        )


def test_a_batch_size_that_the_network_refuses():
    class Fixed(nn.Linear):
        def forward(self, inputs):
            return super().forward(inputs.view(4, 8))

    network = Fixed(8, 3)
    with pytest.raises(ConfigurationError, match=r"Calling Fixed on an example .* \(5, 8\) failed"):
        ExportReport.measure(network, None, network, torch.rand(4, 8), [4, 5])
    report = ExportReport.measure(network, None, network, torch.rand(4, 8), [4], turns=2, seconds=0.001)
    assert report.dense.flops == 2 * 8 * 3


def test_measuring_draws_no_random_number():
    network, ticket = lenet_and_ticket((300, 100))
    network.register_forward_hook(lambda network, inputs, logits: logits + torch.rand(10))
    before = torch.get_rng_state()
    ExportReport.measure(network, ticket, network, torch.rand(2, 1, 28, 28, generator=torch.Generator()), turns=2)
    assert torch.equal(torch.get_rng_state(), before)
