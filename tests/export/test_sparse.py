"""Sparse networks: layers are replaced where that is faster, and only where the outputs stay."""

from importlib import import_module

import pytest
import torch
from lightning.pytorch import seed_everything
from torch import nn

from lightning_lottery import ConfigurationError, ExportError, LotteryTicketCallback, Ticket, TicketError
from lightning_lottery.export import SemiStructuredLinear, SparseLinear, compact, dense, sparse
from lightning_lottery.export.agreement import Expected
from lightning_lottery.vision import LeNet300100
from tests.helpers.fits import Model, Net, loaders, quiet_trainer, same_bits
from tests.helpers.tickets import ticket_of

# The function of this name hides the module.
MODULE = import_module("lightning_lottery.export.sparse")


@pytest.fixture
def faster(monkeypatch):
    """Makes sparse layers of a kind faster than dense ones; gives the batch sizes that are timed."""
    timed = []

    def durations(modules, example, turns, seconds):
        timed.append([tuple(inputs.shape) for inputs in example])
        costs = {nn.Linear: 2.0, SparseLinear: 1.0, SemiStructuredLinear: 0.5}
        return [[costs[type(module.layer)]] * turns for module in modules]

    monkeypatch.setattr(MODULE, "durations", durations)
    return timed


def outputs(network, ticket, inputs):
    """Outputs of a network with masked weights, computed without the package."""
    values = {n: t * ticket.masks[n] if n in ticket.masks else t for n, t in network.state_dict().items()}
    return torch.func.functional_call(network.eval(), values, inputs)


def kinds(network):
    return [type(layer) for layer in network.modules() if not list(layer.children())]


def test_a_measurement_decides():
    """A wide layer with 1 % of its weights is many times faster; one with 40 % is many times slower."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2000, 1500), nn.ReLU(), nn.Linear(1500, 800))
    densities = {"0.weight": 0.01, "2.weight": 0.4}
    masks = {name: torch.rand(network.get_parameter(name).shape) < d for name, d in densities.items()}
    ticket = Ticket.from_masks(masks, network)
    inputs = torch.randn(60, 2000)
    made = sparse(network, ticket, inputs)
    assert kinds(made) == [SparseLinear, nn.ReLU, nn.Linear]
    with torch.no_grad():
        assert torch.allclose(made(inputs), outputs(network, ticket, inputs), atol=1e-4)


def test_a_real_ticket(digits, faster):
    seed_everything(1, verbose=False)
    model = Model(LeNet300100())
    lottery = LotteryTicketCallback(densities=[0.05], verbose=False)
    quiet_trainer(callbacks=[lottery]).fit(model, *loaders(digits))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    made = sparse(model, lottery.tickets[1], digits[0][:20])
    images = digits[0][20:200]
    with torch.no_grad():
        assert torch.allclose(made(images), model.eval()(images), atol=1e-5)
    assert type(made) is Model
    assert same_bits(before, model.state_dict())
    found = {}
    for name, mask in lottery.tickets[1].masks.items():
        found[mask.shape] = layer = made.get_submodule(name.removesuffix(".weight"))
        assert isinstance(layer, SparseLinear) == (mask.float().mean() <= 0.5)
        assert not isinstance(layer, SparseLinear) or layer.values.numel() == int(mask.sum())
    assert isinstance(found[300, 784], SparseLinear)
    assert faster == [[(20, shape[1])] for shape, layer in found.items() if isinstance(layer, SparseLinear)]


def test_compact_and_sparse_together(digits, faster):
    network = LeNet300100()
    ticket = ticket_of(network, 0.004)
    made = sparse(compact(network, ticket, digits[0][:20]), None, digits[0][:20])
    assert kinds(made).count(SparseLinear) == 3
    assert made.layers[1].out_features < 300
    assert torch.allclose(made(digits[0]), outputs(network, ticket, digits[0]), atol=1e-5)


def test_layers_of_more_than_half_stay_dense(faster):
    network = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    masks = {"0.weight": torch.arange(64).view(8, 8) < 33, "1.weight": torch.arange(64).view(8, 8) < 32}
    made = sparse(network, Ticket.from_masks(masks, network), torch.randn(3, 8))
    assert kinds(made) == [nn.Linear, SparseLinear]


def test_a_single_layer_and_a_shared_layer(faster):
    layer = nn.Linear(8, 8)
    assert type(sparse(layer, ticket_of(layer), torch.randn(3, 8))) is SparseLinear
    shared = nn.Sequential(layer, nn.ReLU(), layer)
    ticket = Ticket.from_masks({"0.weight": torch.rand(8, 8) < 0.3}, shared)
    made = sparse(shared, ticket, torch.randn(3, 8))
    assert kinds(made) == [SparseLinear, nn.ReLU]
    assert made[0] is made[2]
    assert faster[-1] == [(3, 8), (3, 8)], "both calls count"


class Uses(nn.Module):
    """Uses the weight of one layer in another way, and has a layer that nothing calls."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.idle = nn.Linear(8, 8), nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, inputs):
        return self.second(self.first(inputs).relu()) + self.first.weight.norm()


def test_layers_whose_weights_are_read_and_idle_layers_stay_dense(faster):
    network = Uses()
    ticket, inputs = ticket_of(network), torch.randn(3, 8)
    made = sparse(network, ticket, inputs)
    assert [type(layer) for layer in (made.first, made.second, made.idle)] == [nn.Linear, SparseLinear, nn.Linear]
    assert torch.allclose(made(inputs), outputs(network, ticket, inputs), atol=1e-5)


def test_layers_with_hooks_and_subclasses_stay_dense(faster):
    class Doubles(nn.Linear):
        def forward(self, inputs):
            return 2 * super().forward(inputs)

    called = []
    network = nn.Sequential(nn.Linear(8, 8), Doubles(8, 8), nn.Linear(8, 8), nn.Linear(9, 8))
    network[0].register_forward_hook(lambda layer, inputs, output: called.append(output))
    network[3].register_forward_pre_hook(lambda layer, inputs: torch.nn.functional.pad(inputs[0], (0, 1)))
    ticket, inputs = ticket_of(network), torch.randn(3, 8)
    made = sparse(network, ticket, inputs)
    assert kinds(made) == [nn.Linear, Doubles, SparseLinear, nn.Linear]
    called.clear()
    assert torch.allclose(made(inputs), outputs(network, ticket, inputs), atol=1e-5)
    assert len(called) == 2


def test_the_speed_of_all_examples_counts(monkeypatch):
    """With times by hand: twice as fast for a small batch, and slower for a large one, three times or 1.5."""
    network = nn.Linear(8, 8)
    masked = dense(network, ticket_of(network))
    for slower, kind in ((3, nn.Linear), (1.5, SparseLinear)):
        costs = {2: {nn.Linear: 2, SparseLinear: 1}, 50: {nn.Linear: 1, SparseLinear: slower}}

        def durations(modules, example, turns, seconds, costs=costs):
            return [[costs[len(example[0])][type(module.layer)]] * turns for module in modules]

        monkeypatch.setattr(MODULE, "durations", durations)
        examples = [torch.randn(2, 8), torch.randn(50, 8)]
        assert type(MODULE.with_sparse_layers(masked, examples, Expected.of(masked, examples))) is kind


def test_used_inputs_are_selected_if_that_is_faster(monkeypatch):
    def durations(modules, example, turns, seconds):
        seconds_of = {None: 3.0, False: 2.0, True: 1.0}
        return [[seconds_of[getattr(module.layer, "_selects", None)]] * turns for module in modules]

    monkeypatch.setattr(MODULE, "durations", durations)
    network = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    masks = {name: torch.zeros(8, 8, dtype=torch.bool) for name in ("0.weight", "1.weight")}
    masks["0.weight"][:, :6], masks["1.weight"][0, :7] = torch.rand(8, 6) < 0.5, True
    masks["0.weight"][0, :6] = True
    made = sparse(network, Ticket.from_masks(masks, network), torch.randn(3, 8))
    assert [None if layer.used is None else len(layer.used) for layer in made] == [6, None]


def test_a_network_exported_on_one_sample_takes_more(faster):
    """The outputs of sparse layers are not contiguous, but those of one sample are."""

    class Views(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(8, 6), nn.Linear(3, 2)

        def forward(self, inputs):
            return self.second(self.first(inputs).view(-1, 3))

    network = Views()
    ticket = ticket_of(network)
    made, inputs = sparse(network, ticket, torch.randn(1, 8)), torch.randn(5, 8)
    assert torch.allclose(made(inputs), outputs(network, ticket, inputs), atol=1e-5)
    assert isinstance(made.second, SparseLinear)


def test_an_empty_layer_does_no_harm(faster):
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.some, self.none = nn.Linear(8, 8), nn.Linear(0, 8)

        def forward(self, inputs):
            return self.some(inputs) + self.none(inputs[:, :0])

    network = Both()
    ticket = Ticket.from_masks({"some.weight": torch.eye(8).bool()}, network)
    made = sparse(network, ticket, torch.randn(3, 8))
    assert [type(made.some), type(made.none)] == [SparseLinear, nn.Linear]


def test_the_encoder_layers_of_pytorch(faster):
    """In evaluation mode they read the weights of their linear layers themselves."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    network = nn.Sequential(nn.TransformerEncoder(layer, 2), nn.Linear(8, 3))
    ticket, inputs = ticket_of(network), torch.randn(3, 5, 8)
    made = sparse(network, ticket, inputs)
    assert isinstance(made[1], SparseLinear)
    with torch.no_grad():
        assert torch.allclose(made(inputs), outputs(network, ticket, inputs), atol=1e-5)


def test_types_without_sparse_products_stay_dense(faster):
    network = nn.Linear(8, 8).bfloat16()
    made = sparse(network, ticket_of(network), torch.randn(3, 8, dtype=torch.bfloat16))
    assert type(made) is nn.Linear
    assert type(sparse(nn.Linear(8, 8).double(), None, torch.randn(3, 8).double())) is nn.Linear, "it has no zeros"


def test_a_network_without_linear_layers_stays_as_it_is(faster):
    network = nn.Conv2d(1, 2, 3)
    assert type(sparse(network, ticket_of(network), torch.rand(2, 1, 8, 8))) is nn.Conv2d


def test_gpu_layers_of_two_in_four_are_a_candidate(monkeypatch, faster):
    """With stand-ins, since there is no GPU: the fastest candidate is taken."""
    monkeypatch.setattr(torch.sparse, "to_sparse_semi_structured", lambda weight: weight.clone())
    monkeypatch.setattr(MODULE, "is_on_gpu", lambda weight: True)
    network = nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 4))
    pattern = torch.tensor([True, False, False, True])
    masks = {"0.weight": pattern.repeat(4, 2), "1.weight": torch.eye(4, dtype=torch.bool)}
    masks["1.weight"][0, :3] = True
    made = sparse(network, Ticket.from_masks(masks, network), torch.randn(3, 8))
    assert kinds(made) == [SemiStructuredLinear, SparseLinear]


def test_bad_input_is_refused():
    network = Net()
    ticket, images = ticket_of(network), torch.rand(4, 784)
    with pytest.raises(TicketError, match="does not fit the network"):
        sparse(LeNet300100(), ticket, images)
    with pytest.raises(ConfigurationError, match=r"Calling Net on an example .* \(2, 3\) failed"):
        sparse(network, ticket, torch.rand(2, 3))
    with pytest.raises(ConfigurationError, match="contains no tensor"):
        sparse(network, ticket, None)
    with pytest.raises(TicketError, match=r"A network .* is needed"):
        sparse("network", ticket, images)
    network.output.bias.data.fill_(torch.nan)
    with pytest.raises(ExportError, match="contain no finite number"):
        sparse(network, ticket, images)
