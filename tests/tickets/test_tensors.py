"""Unusual buffers: sparse, complex, and those that get their shape in the first batch."""

import itertools
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from lightning_lottery import LotteryTicketCallback, ShuffleMask, Ticket, TicketError, ToStep
from lightning_lottery.tickets.tensors import bytes_of, moved_like, put, put_together, take_apart, values_of
from tests.helpers.fits import Model, Net, loaders, quiet_trainer
from tests.helpers.resuming import Stop
from tests.helpers.rounds import PRUNED

warnings.filterwarnings("ignore", "Sparse")
MATRIX = torch.tensor([[1.0, 0, 2, 0], [0, 0, 0, 3], [0, -4, 0, 0], [0, 0, 0, 0]])
KINDS = {
    "coo": MATRIX.to_sparse(),
    "coo of vectors": torch.sparse_coo_tensor([[2, 0]], [[1.0, 2], [3, 4]], (3, 2)),
    "csr": MATRIX.to_sparse_csr(),
    "csc": MATRIX.to_sparse_csc(),
    "bsr": MATRIX.to_sparse_bsr((2, 2)),
    "bsc": MATRIX.to_sparse_bsc((2, 2)),
    "empty": torch.sparse_coo_tensor(torch.zeros(2, 0, dtype=torch.long), torch.zeros(0), (4, 4)),
    "coo in double complex": MATRIX.to(torch.complex128).to_sparse(),
    "complex": torch.complex(MATRIX, -MATRIX),
    "double complex": torch.complex(MATRIX.double(), -MATRIX.double()),
    "strided": MATRIX.t(),
    "expanded": torch.arange(3).expand(2, 3),
}


def same(first, second):
    values = (first, second)
    dense = [value if value.layout == torch.strided else value.to_dense() for value in values]
    return first.layout == second.layout and first.dtype == second.dtype and torch.equal(*dense)


@pytest.mark.parametrize("kind", KINDS)
def test_parts_make_the_whole(kind):
    parts, how = take_apart(KINDS[kind])
    assert all(part.layout == torch.strided and part.is_contiguous() for part in parts.values())
    assert same(put_together(parts, how), KINDS[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_tickets_store_unusual_tensors(kind, tmp_path):
    layer = nn.Linear(2, 2)
    layer.register_buffer("kept", KINDS[kind].clone())
    mask = torch.tensor([[True, False], [False, True]])
    weights = {"weight": torch.ones(2, 2), "bias": torch.zeros(2), "kept": KINDS[kind]}
    Ticket({"weight": mask}, weights).save(tmp_path / "t.safetensors")
    ticket = Ticket.load(tmp_path / "t.safetensors")
    assert same(ticket.weights["kept"], KINDS[kind])
    with torch.no_grad():
        values_of(layer.kept).zero_()
    ticket.apply(layer)
    assert same(layer.kept, KINDS[kind])
    assert torch.equal(layer.weight, mask.float())


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(3.0),
        torch.tensor(3.0).expand(1),
        torch.from_numpy(np.zeros(0, np.float32)),
        torch.ones(2, 3).t(),
        torch.tensor([True, False]),
        torch.ones(3, dtype=torch.complex64),
    ],
)
def test_bytes_of_any_strides(tensor):
    assert bytes(bytes_of(tensor)) == tensor.numpy().tobytes()


def test_nan_is_found_in_unusual_tensors():
    for value in KINDS.values():
        assert not values_of(value).isnan().any()
        if value.is_floating_point() or value.is_complex():
            broken = (value.to_dense() if value.layout != torch.strided else value).clone()
            broken[0, 0] = torch.nan
            assert values_of(broken).isnan().any()
            if value.layout in (torch.sparse_coo, torch.sparse_csr):
                assert values_of(broken.to_sparse(layout=value.layout)).isnan().any()


def test_tensors_that_cannot_be_stored_are_named(tmp_path):
    quantised = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
    with pytest.raises(
        TicketError, match=r"'q' is a tensor of torch.qint8 on cpu, which .* \(it is quantised\).*persistent=False"
    ):
        Ticket({}, {"q": quantised}).save(tmp_path / "t.safetensors")


def test_values_are_set_in_place_if_they_fit():
    layer = nn.Module()
    layer.register_buffer("kept", torch.zeros(3))
    target, address = layer.kept, layer.kept.data_ptr()
    put(layer, "kept", torch.ones(3, dtype=torch.float64))
    assert target.tolist() == [1, 1, 1]
    assert (target.data_ptr(), target.dtype) == (address, torch.float32)
    put(layer, "kept", torch.ones(2))
    assert layer.kept is target
    assert target.tolist() == [1, 1]
    for first, second in itertools.product(KINDS.values(), repeat=2):
        if first.dtype == second.dtype:
            layer.kept = first.clone()
            put(layer, "kept", second)
            assert same(layer.kept, second)


class Sparse(Net):
    """Mixes pixels with a sparse matrix that changes during training."""

    def __init__(self, layout):
        super().__init__()
        adjacency = torch.eye(784) + torch.diag(torch.full((783,), 0.1), 1)
        self.register_buffer("adjacency", adjacency.to_sparse(layout=layout))

    def forward(self, images):
        if self.training:
            self.adjacency.values().mul_(1.001)
        return super().forward((self.adjacency @ images.view(-1, 784).t()).t())


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_sparse_buffers(digits, tmp_path, layout):
    model = Model(Sparse(layout))
    first = model.network.adjacency.to_dense().clone()

    def fit(model, *others, resume=False):
        lottery = LotteryTicketCallback(
            rounds=1, amount=0.5, controls=[ShuffleMask()], dirpath=tmp_path / "run", verbose=False
        )
        trainer = quiet_trainer(callbacks=[lottery, *others], max_epochs=1)
        trainer.fit(model, *loaders(digits), ckpt_path=lottery.resume(trainer) if resume else None)
        return lottery

    with pytest.raises(ZeroDivisionError):
        fit(model, Stop(1))
    model = Model(Sparse(layout))
    lottery = fit(model, resume=True)
    assert [record.steps for record in lottery.records] == [7, 7, 7]
    for number in (0, 1):
        kept = lottery.tickets[number].weights["network.adjacency"]
        assert kept.layout == layout
        assert torch.equal(kept.to_dense(), first)
    torch.testing.assert_close(model.network.adjacency.to_dense(), first * 1.001**7)


class Observed(Model):
    """Fake quantisation by channels, whose observers get their shape at the first batch."""

    def __init__(self):
        super().__init__()
        from torch.ao.quantization import get_default_qat_qconfig, prepare_qat

        network = nn.Sequential(nn.Flatten(), nn.Linear(784, 20), nn.ReLU(), nn.Linear(20, 10)).train()
        network.qconfig = get_default_qat_qconfig("fbgemm")
        self.network = prepare_qat(network)


def test_quantisation_aware_training(digits):
    lottery = LotteryTicketCallback(rounds=2, amount=0.5, rewind=ToStep(3), verbose=False)
    model = Observed()
    shapes = {name: buffer.shape for name, buffer in model.named_buffers()}
    quiet_trainer(callbacks=[lottery], num_sanity_val_steps=0).fit(model, *loaders(digits))
    assert [record.steps for record in lottery.records] == [14, 11, 11]
    ticket, fresh = lottery.tickets[2], Observed()
    grown = [name for name, shape in shapes.items() if ticket.weights[name].shape != shape]
    assert any("weight_fake_quant" in name for name in grown)
    ticket.apply(fresh)
    for name, buffer in fresh.named_buffers():
        assert torch.equal(buffer, ticket.weights[name]), name
    quiet_trainer(max_epochs=1).fit(fresh, *loaders(digits))
    lottery.tickets[0].apply(fresh)
    assert {name: buffer.shape for name, buffer in fresh.named_buffers()} == shapes


def test_buffers_that_are_set_at_the_first_batch(tmp_path):
    class Late(nn.Linear):
        def __init__(self):
            super().__init__(2, 2)
            self.register_buffer("scale", None)

    trained, fresh = Late(), Late()
    trained.scale = torch.tensor([3.0, 4.0])
    weights = {"weight": torch.ones(2, 2), "bias": torch.zeros(2), "scale": trained.scale}
    ticket = Ticket({}, weights)
    ticket.apply(fresh)
    assert fresh.scale.tolist() == [3, 4]
    assert "scale" in dict(fresh.named_buffers())
    with pytest.raises(TicketError, match="only the network has: 'scale'"):
        Ticket({}, {"weight": torch.ones(2, 2), "bias": torch.zeros(2)}).apply(fresh)
    with pytest.raises(TicketError, match=r"'scale' has shape \(2,\) in the network and \(3,\) in the ticket"):
        Ticket({}, {**weights, "scale": torch.ones(3)}).apply(fresh)


@pytest.mark.parametrize("persistent", [True, False])
def test_expanded_buffers(digits, persistent):
    class Expanded(Net):
        def __init__(self):
            super().__init__()
            self.register_buffer("positions", torch.arange(8).expand(3, -1), persistent=persistent)

    lottery = LotteryTicketCallback(rounds=1, amount=0.5, controls=[ShuffleMask()], verbose=False)
    model = Model(Expanded())
    quiet_trainer(callbacks=[lottery], max_epochs=1).fit(model, *loaders(digits))
    assert torch.equal(model.network.positions, torch.arange(8).expand(3, -1))
    lottery.tickets[1].apply(Model(Expanded()))


class Odd(Net):
    """Contains frozen weights of types with little arithmetic."""

    def __init__(self):
        super().__init__()
        self.tiny = nn.Parameter(torch.rand(4, 4).to(torch.float8_e4m3fn), requires_grad=False)
        self.sparse = nn.Parameter(torch.eye(4).to_sparse(), requires_grad=False)
        self.compressed = nn.Parameter(torch.eye(4).to_sparse_csr(), requires_grad=False)
        self.whole = nn.Parameter(torch.arange(4), requires_grad=False)


@pytest.mark.parametrize("exclude", [[], ["frozen"]])
def test_frozen_weights_of_unusual_kinds(digits, exclude):
    lottery = LotteryTicketCallback(rounds=1, amount=0.5, controls=[ShuffleMask()], exclude=exclude, verbose=False)
    model = Model(Odd())
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    model.configure_optimizers = lambda: torch.optim.SGD((p for p in model.parameters() if p.requires_grad), 0.1)
    quiet_trainer(callbacks=[lottery], max_epochs=1).fit(model, *loaders(digits))
    assert list(lottery.tickets[1].masks) == PRUNED
    for name in ("tiny", "sparse", "compressed", "whole"):
        kept = lottery.tickets[1].weights[f"network.{name}"]
        for value in (kept, getattr(model.network, name).detach()):
            assert torch.equal(values_of(value), values_of(before[f"network.{name}"])), name


def test_a_state_moves_to_the_devices_of_the_present_one():
    """The device ``meta`` stands for a GPU."""
    there = torch.ones(2, device="meta")
    state = {"scale": torch.ones(2), "list": [torch.zeros(1), 3], "here": torch.ones(1)}
    moved = moved_like(state, {"scale": there, "list": [there, 4], "here": torch.zeros(5)})
    assert [moved["scale"].device.type, moved["list"][0].device.type, moved["here"].device.type] == [
        *("meta", "meta", "cpu")
    ]
    assert moved["list"][1] == 3
    assert moved["here"] is state["here"]
    assert moved_like(state, {"scale": there}) is state, "another structure"
