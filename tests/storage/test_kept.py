"""States and tickets that are read from the run folder when they are needed."""

import warnings
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lightning_lottery import LotteryError, Ticket
from lightning_lottery.storage.folder import RunFolder
from lightning_lottery.storage.kept import KeptState, KeptTicket
from lightning_lottery.storage.plain_values import State
from lightning_lottery.tickets.dense import dense_ticket


@dataclass(frozen=True)
class Some(State):
    values: Tensor
    free: dict[str, Any]


class Odd:
    """Not a plain value."""


@pytest.mark.parametrize("is_writer", [True, False])
def test_what_was_written_is_read_again(tmp_path, is_writer):
    kept = KeptState(RunFolder(tmp_path / "run", is_writer=is_writer), "some.pt", Some)
    assert not kept.exists()
    kept.write(Some(torch.arange(3), {"a": [1, torch.ones(2)]}))
    assert kept.exists()
    assert (tmp_path / "run" / "some.pt").exists() == is_writer
    first = kept.read()
    first.values.zero_()
    first.free["a"].clear()
    second = kept.read()
    assert torch.equal(second.values, torch.arange(3)), "each reader has its own copy"
    assert second.free["a"][0] == 1
    assert torch.equal(second.free["a"][1], torch.ones(2))


def test_another_process_reads_the_file(tmp_path):
    KeptState(RunFolder(tmp_path), "some.pt", Some).write(Some(torch.arange(3), {}))
    reader = KeptState(RunFolder(tmp_path, is_writer=False), "some.pt", Some)
    assert torch.equal(reader.read().values, torch.arange(3))


def test_what_could_not_be_read_stays_in_memory_with_one_warning(tmp_path):
    kept = KeptState(RunFolder(tmp_path), "some.pt", Some)
    odd = Odd()
    with pytest.warns(UserWarning, match="cannot be resumed if it is interrupted"):
        kept.write(Some(torch.arange(3), {"odd": odd}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept.write(Some(torch.arange(4), {"odd": odd}))
    assert isinstance(kept.read().free["odd"], Odd)
    assert torch.equal(kept.read().values, torch.arange(4))
    kept.write(Some(torch.arange(5), {}))
    assert torch.equal(kept.read().values, torch.arange(5))


class Network(nn.Module):
    """A parameter that is pruned, one that is not, and buffers that a ticket file takes apart."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(3, 5)), nn.Parameter(torch.randn(3))
        self.register_buffer("sparse", torch.eye(3).to_sparse_csr())
        self.register_buffer("waves", torch.randn(2, dtype=torch.complex128))
        self.register_buffer("count", torch.tensor(7))


@pytest.mark.parametrize("is_writer", [True, False])
def test_tensors_of_a_ticket_are_read_one_by_one(tmp_path, is_writer):
    network = Network()
    dense = dense_ticket(network, {"weight": network.weight})
    ticket = replace(dense, masks={"weight": torch.rand(3, 5) > 0.5}, round=2)
    folder = RunFolder(tmp_path / "run", is_writer=is_writer)
    kept = KeptTicket(folder, "tickets/round_02.safetensors", network, ticket)
    read, weights = kept.read(), kept.weights()
    assert (read.round, read.branch, read.provenance) == (2, "ticket", ticket.provenance)
    assert torch.equal(read.masks["weight"], ticket.masks["weight"])
    assert set(weights) == set(read.weights) == set(ticket.weights)
    assert len(weights) == 5
    for name, expected in ticket.weights.items():
        for found in (weights[name], read.weights[name]):
            assert (found.layout, found.dtype) == (expected.layout, expected.dtype)
            assert torch.equal(found.to_dense(), expected.to_dense())
    assert "nothing" not in weights
    with pytest.raises(KeyError):
        weights["nothing"]


def test_a_ticket_of_another_process(tmp_path):
    folder = RunFolder(tmp_path)
    Ticket({"weight": torch.tensor([True, False])}, {"weight": torch.ones(2)}).save(tmp_path / "a.safetensors")
    weights = KeptTicket(folder, "a.safetensors", nn.Linear(1, 1)).weights()
    assert torch.equal(weights["weight"], torch.tensor([1.0, 0.0]))


def test_a_damaged_or_missing_ticket_is_named(tmp_path):
    folder = RunFolder(tmp_path)
    path = tmp_path / "a.safetensors"
    with pytest.raises(LotteryError, match=r"a\.safetensors is missing, so this run cannot continue"):
        KeptTicket(folder, "a.safetensors", nn.Linear(2, 1)).weights()
    save_file({"weight.weight": torch.ones(1)}, path)
    with pytest.raises(LotteryError, match="has format 'none'"):
        KeptTicket(folder, "a.safetensors", nn.Linear(2, 1)).weights()
    metadata = {"format": "lightning-lottery ticket", "version": "1", "shapes": '{"weight": [1, 2]}'}
    save_file({"weight.weight": torch.ones(1)}, path, metadata)
    with pytest.raises(LotteryError, match=r"a\.safetensors is a damaged ticket file"):
        KeptTicket(folder, "a.safetensors", nn.Linear(2, 1)).weights()
    Ticket({}, {"weight": torch.ones(1, 2)}).save(path)
    weights = KeptTicket(folder, "a.safetensors", nn.Linear(2, 1)).weights()
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(LotteryError, match=r"a\.safetensors is .*damaged"):
        weights["weight"]
