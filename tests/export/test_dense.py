"""Masked copies, and what agrees with them."""

import pytest
import torch
from torch import nn

from lightning_lottery import ConfigurationError, ExportError, TicketError
from lightning_lottery.export import dense
from lightning_lottery.export.agreement import Expected
from tests.helpers.fits import Net, same_bits
from tests.helpers.tickets import assert_masked, ticket_of


def test_a_masked_copy_in_evaluation_mode(tmp_path):
    network = Net()
    ticket = ticket_of(network)
    ticket.save("ticket.safetensors")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for given in (ticket, "ticket.safetensors"):
        made = dense(network, given)
        assert_masked(made, ticket)
        assert not made.training
        for name, mask in ticket.masks.items():
            assert torch.equal(made.get_parameter(name)[mask], network.get_parameter(name)[mask])
    assert same_bits(before, network.state_dict())
    assert same_bits(dense(network, None).state_dict(), network.state_dict())
    with torch.inference_mode():
        assert not any(p.is_inference() for p in dense(network, ticket).parameters())


def test_bad_input_is_refused():
    with pytest.raises(TicketError, match="does not fit the network"):
        dense(nn.Linear(2, 2), ticket_of(Net()))
    with pytest.raises(ConfigurationError, match="ticket=3 is neither a Ticket nor a path"):
        dense(Net(), 3)
    with pytest.raises(TicketError, match=r"A network .* is needed"):
        dense("network", None)


class Scaled(nn.Module):
    """A linear layer, with outputs that differ for some inputs."""

    def __init__(self, factor, when):
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.factor, self.when = nn.Linear(4, 3), factor, when

    def forward(self, inputs):
        if inputs.dtype == torch.float32 and float(inputs.max()) > 100:
            raise ValueError("too large")
        return self.inner(inputs) * (self.factor if self.when(inputs) else 1)


@pytest.mark.parametrize(
    ("factor", "when", "agrees"),
    [
        (1, lambda inputs: True, True),
        (1 + 1e-5, lambda inputs: True, True),
        (1 + 2e-4, lambda inputs: True, False),
        # only with inputs other than zero, which the example does not have
        (1 + 2e-4, lambda inputs: inputs.any(), False),
        # only for one of the batch sizes
        (1 + 2e-4, lambda inputs: len(inputs) == 5, False),
        (float("nan"), lambda inputs: True, False),
    ],
)
def test_outputs_agree_up_to_rounding(factor, when, agrees):
    expected = Expected.of(Scaled(1, when), [torch.zeros(2, 4), torch.zeros(5, 4)])
    assert expected.agrees(Scaled(factor, when)) == agrees
    assert not expected.agrees(nn.Linear(4, 2))
    assert not expected.agrees(nn.Linear(5, 3)), "it does not run"


def test_types_of_16_bits_may_differ_more():
    network, other = Scaled(1, lambda inputs: True).bfloat16(), Scaled(1.01, lambda inputs: True).bfloat16()
    expected = Expected.of(network, [torch.ones(2, 4, dtype=torch.bfloat16)])
    assert expected.agrees(other)
    assert not expected.agrees(Scaled(1.05, lambda inputs: True).bfloat16())


def test_noise_is_left_out_where_a_network_refuses_it():
    class Strict(Scaled):
        def forward(self, inputs):
            if bool((inputs < 0).any()):
                raise ValueError("negative")
            return super().forward(inputs)

    expected = Expected.of(Strict(1, lambda inputs: True), [torch.zeros(9, 4)])
    assert len(expected.examples) == len(expected.outputs) == 1
    others = [torch.ones(2, 4), -torch.ones(2, 4)]
    assert len(Expected.of(Strict(1, lambda inputs: True), [torch.zeros(9, 4)], others).examples) == 2


def test_outputs_without_a_number_are_refused():
    with pytest.raises(ExportError, match="Scaled contain no finite number"):
        Expected.of(Scaled(float("nan"), lambda inputs: True), [torch.zeros(2, 4)])
