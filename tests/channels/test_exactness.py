"""Differences of outputs."""

import math

import pytest
import torch

from lightning_lottery.channels import largest_difference

INFINITE = torch.tensor([1.0, math.inf, -4.0])


@pytest.mark.parametrize(
    ("ours", "theirs", "difference"),
    [
        ([torch.tensor([1.0, 2.0])], [torch.tensor([1.0, 4.0])], 0.5),
        ([torch.tensor([1.0]), torch.tensor([[3.0]])], [torch.tensor([1.0]), torch.tensor([[2.0]])], 0.5),
        ([torch.tensor([1, 3])], [torch.tensor([1, 2])], 0.5),
        ([torch.zeros(2)], [torch.zeros(2)], 0.0),
        ([torch.full((2,), 0.25)], [torch.zeros(2)], 0.25),
        ([torch.empty(0)], [torch.empty(0)], 0.0),
        ([INFINITE], [INFINITE], 0.0),
        ([torch.tensor([1.0, math.inf, -2.0])], [INFINITE], 0.5),
        ([torch.tensor([1.0, 5.0, -4.0])], [INFINITE], math.inf),
        ([torch.tensor([math.nan])], [torch.tensor([1.0])], math.inf),
        ([torch.tensor([1.0])], [torch.tensor([math.nan])], math.inf),
        ([torch.tensor([math.nan, 1.0])], [torch.tensor([math.nan, 2.0])], 0.5),
        ([torch.zeros(2)], [torch.zeros(3)], math.inf),
        # Each tensor has its own scale, and fillers that agree have no influence on it.
        ([torch.tensor(1e6), torch.tensor([1.0])], [torch.tensor(1e6), torch.tensor([2.0])], 0.5),
        ([torch.tensor([1.0, -1e9])], [torch.tensor([2.0, -1e9])], 0.5),
        ([torch.tensor([1.0, 1e9])], [torch.tensor([1.0, 2e9])], 0.5),
        ([torch.tensor([1 + 1j])], [torch.tensor([1 + 2j])], 0.5),
        # A tiny number beside usual ones is rounding.
        ([torch.tensor([1.0, 1e-9])], [torch.tensor([1.0, 0.0])], pytest.approx(1e-9)),
        ([torch.zeros(2)], [torch.zeros(2), torch.zeros(2)], math.inf),
    ],
)
def test_the_largest_difference_is_relative_to_the_largest_number_of_its_tensor(ours, theirs, difference):
    assert largest_difference(ours, theirs) == difference
