"""Where the survivors are, against masks that are known."""

from pathlib import Path

import pytest
import torch

from lightning_lottery import Records, Ticket
from lightning_lottery.analysis import FirstLayer, layer_densities
from lightning_lottery.storage import Replicate, RunDescription
from tests.helpers.records import record


def run(weight, inputs, masks, seed=0, name="first.weight"):
    """A run with tickets of rounds 1, 2, … that have these masks."""
    folder = Path(f"run_{seed}")
    for number, mask in enumerate(masks, 1):
        ticket = Ticket({name: mask}, {name: torch.zeros(weight)}, round=number)
        ticket.save(folder / f"tickets/round_{number:02d}.safetensors")
    description = RunDescription(prunable={name: list(weight)}, input_shape=inputs, provenance={"seed": str(seed)})
    return Replicate(folder, description, Records())


def test_densities_of_layers_are_means_over_the_seeds():
    description = RunDescription(prunable={"a": [2, 5], "b": [4]})
    records = [
        [record(0, kept_by_layer={"a": 10, "b": 4}), record(1, kept_by_layer={"a": 5, "b": 4})],
        [
            record(0, kept_by_layer={"a": 10, "b": 4}),
            record(1, kept_by_layer={"a": 7, "b": 1}),
            record(1, "other"),
        ],
    ]
    runs = {seed: Replicate(Path("x"), description, Records(own)) for seed, own in enumerate(records)}
    assert layer_densities(runs) == {0: {"a": 1.0, "b": 1.0}, 1: {"a": pytest.approx(0.6), "b": 0.625}}
    older = {0: Replicate(Path("x"), description, Records([record(0), record(1)]))}
    assert layer_densities(older) == {}


@pytest.mark.parametrize("inputs", [[3, 6, 5], [30], [6, 5, 3], [4, 6, 5], None])
def test_pixels_are_counted_over_outputs_and_channels_and_seeds(inputs):
    masks = [torch.rand(7, 90) < 0.3 for _ in range(2)]
    runs = {seed: run((7, 90), inputs, [mask], seed) for seed, mask in enumerate(masks)}
    found = FirstLayer.of(runs, [1, 2])
    if inputs != [3, 6, 5]:
        assert found is None
        return
    assert list(found.images) == [1], "round 2 has no ticket"
    for row in range(6):
        for column in range(5):
            places = [channel * 30 + row * 5 + column for channel in range(3)]
            alive = [mask[output, place].item() for mask in masks for output in range(7) for place in places]
            assert found.images[1][row, column] == pytest.approx(sum(alive) / len(alive))


def test_filters_of_a_convolution_are_counted_over_input_channels():
    mask = torch.rand(8, 3, 5, 5) < 0.4
    found = FirstLayer.of({0: run((8, 3, 5, 5), [3, 32, 32], [mask])}, [1])
    assert not found.is_pixels
    assert torch.allclose(found.images[1], mask.float().sum(1) / 3)


@pytest.mark.parametrize(("shape", "inputs"), [((8, 3, 1, 1), [3, 32, 32]), ((9, 4, 3, 3), [3, 32, 32])])
def test_other_first_layers_are_left_out(shape, inputs):
    assert FirstLayer.of({0: run(shape, inputs, [torch.ones(shape) > 0])}, [1]) is None
