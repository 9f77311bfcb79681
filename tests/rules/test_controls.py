import warnings
from dataclasses import dataclass, replace

import pytest
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from lightning_lottery import (
    ConfigurationError,
    Control,
    EarlyBird,
    LotteryTicketCallback,
    Reinitialize,
    ShuffleMask,
    Ticket,
)
from lightning_lottery.rules.control import make_control
from lightning_lottery.tickets.network import starting_values
from tests.helpers.fits import Model, Net, copied, loaders, quiet_trainer, same_bits
from tests.helpers.resuming import Manual


def dense_and_sparse(module):
    weights = starting_values(module)
    masks = {name: torch.ones_like(p, dtype=torch.bool) for name, p in module.named_parameters() if p.dim() > 1}
    dense = Ticket(masks, weights)
    sparse = Ticket({name: weights[name].abs() > weights[name].abs().median() for name in masks}, weights, round=2)
    return dense, sparse


CONTROLS = [ShuffleMask(), Reinitialize()]


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.branch)
def test_every_control_leaves_network_generators_and_tickets_alone_and_repeats_itself(control):
    module = Net()
    dense, sparse = dense_and_sparse(module)
    before = [copied(module), *(dict(t) for ticket in (dense, sparse) for t in (ticket.masks, ticket.weights))]
    state = torch.get_rng_state()
    control.check(dense, module)
    made = control.ticket(sparse, dense, module, seed=1)
    again = control.ticket(sparse, dense, module, seed=1)
    other = control.ticket(sparse, dense, module, seed=2)
    after = [copied(module), *(dict(t) for ticket in (dense, sparse) for t in (ticket.masks, ticket.weights))]
    assert all(same_bits(a, b) for a, b in zip(before, after, strict=True))
    assert torch.equal(torch.get_rng_state(), state)
    assert same_bits(made.masks | made.weights, {**again.masks, **again.weights})
    assert not same_bits(made.weights, other.weights)
    assert made.kept == sparse.kept
    assert made.layer_densities() == sparse.layer_densities()


def test_shuffling_moves_positions_and_keeps_original_values():
    module = Net()
    dense, sparse = dense_and_sparse(module)
    made = ShuffleMask().ticket(sparse, dense, module, seed=1)
    for name, mask in made.masks.items():
        agreement = float((mask == sparse.masks[name]).float().mean())
        assert agreement < 0.75, f"{name} is hardly shuffled: {agreement}"
        assert torch.equal(made.weights[name], torch.where(mask, dense.weights[name], 0))
    assert torch.equal(made.weights["hidden.bias"], dense.weights["hidden.bias"])


def test_reinitializing_keeps_the_mask_and_draws_all_parameters_from_the_same_distribution():
    module = Net()
    dense, sparse = dense_and_sparse(module)
    made = Reinitialize().ticket(sparse, dense, module, seed=1)
    assert same_bits(made.masks, sparse.masks)
    weight, original, mask = (
        made.weights["hidden.weight"],
        dense.weights["hidden.weight"],
        sparse.masks["hidden.weight"],
    )
    assert not (weight == original)[mask].any()
    bound = 1 / module.hidden.in_features**0.5  # PyTorch's default for linear layers
    assert weight.abs().max() <= bound
    assert weight[mask].std() == pytest.approx(bound / 3**0.5, rel=0.05)
    assert not torch.equal(made.weights["hidden.bias"], dense.weights["hidden.bias"])
    assert torch.equal(made.weights["norm.weight"], torch.ones(4))


def test_attention_and_recurrent_layers_are_drawn_as_they_were_built():
    module = nn.ModuleList(
        [nn.MultiheadAttention(16, 2), nn.LSTM(16, 16), nn.Conv2d(3, 16, 3), nn.Embedding(9, 16)]
    )
    dense, sparse = dense_and_sparse(module)
    Reinitialize().check(dense, module)
    made = Reinitialize().ticket(sparse, dense, module, seed=1)
    assert not made.weights["0.in_proj_bias"].any()
    assert not made.weights["0.out_proj.bias"].any()


def initialise(network):
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.5)


def test_a_custom_initialisation_is_drawn_by_the_given_function():
    module = Net()
    initialise(module)
    dense, sparse = dense_and_sparse(module)
    control = Reinitialize(initialize=initialise)
    control.check(dense, module)
    made = control.ticket(sparse, dense, module, seed=1)
    weight, mask = made.weights["hidden.weight"], sparse.masks["hidden.weight"]
    assert weight[mask].std() == pytest.approx(0.5, rel=0.05)
    assert not torch.isin(weight[mask], dense.weights["hidden.weight"]).any()


def test_without_the_function_initial_values_are_shuffled_with_a_warning():
    class Free(Net):
        def __init__(self):
            super().__init__()
            nn.init.normal_(self.hidden.weight, std=0.5)
            nn.init.zeros_(self.norm.weight)  # like some residual networks
            nn.init.zeros_(self.output.bias)
            self.free = nn.Parameter(torch.rand(4, 4))

    module = Free()
    dense, sparse = dense_and_sparse(module)
    control = Reinitialize()
    with pytest.warns(UserWarning, match=r"4 parameters, such as 'free', were not initialised by.*initialize=f"):
        control.check(dense, module)
    full = replace(sparse, masks={name: torch.ones_like(mask) for name, mask in sparse.masks.items()})
    made = control.ticket(full, dense, module, seed=1).weights
    for name in ("hidden.weight", "free"):
        assert torch.equal(made[name].flatten().sort().values, dense.weights[name].flatten().sort().values)
        assert (made[name] == dense.weights[name]).float().mean() < 0.3
    assert not made["norm.weight"].any()
    assert not made["output.bias"].any()
    assert not torch.isin(made["output.weight"], dense.weights["output.weight"]).any(), "reset as it was built"


def test_a_function_that_leaves_a_parameter_out_is_refused():
    module = Net()
    dense, _ = dense_and_sparse(module)
    control = Reinitialize(initialize=lambda network: nn.init.normal_(network.hidden.weight))
    with pytest.raises(ConfigurationError, match=r"does not set 'convolution.weight', .*every parameter"):
        control.check(dense, module)


def test_weights_in_any_memory_format():
    module = Net().to(memory_format=torch.channels_last)
    dense, sparse = dense_and_sparse(module)
    for control in CONTROLS:
        control.check(dense, module)
        assert control.ticket(sparse, dense, module, seed=1).kept == sparse.kept


def test_the_branch_is_the_class_in_snake_case():
    @dataclass(frozen=True)
    class MyOwnIdea(Control):
        def ticket(self, ticket, dense, module, seed):
            return ticket

    assert [control.branch for control in (ShuffleMask(), Reinitialize(), MyOwnIdea())] == [
        "shuffle_mask",
        "reinitialize",
        "my_own_idea",
    ]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            lambda t: replace(t, masks={n: m | True for n, m in t.masks.items()}),
            "keeps .* weights, but",
        ),
        (lambda t: replace(t, masks=dict(list(t.masks.items())[1:])), "lacks .*among its masks"),
        (lambda t: 3, "must return a Ticket"),
        (lambda t: replace(t, masks={n: m[:1] for n, m in t.masks.items()}), "control .* invalid ticket: .*shape"),
        (
            lambda t: replace(t, weights={n: w * torch.nan for n, w in t.weights.items()}),
            "contains NaN or infinity",
        ),
    ],
)
def test_a_control_of_another_size_is_refused_before_training(digits, changed, message):
    @dataclass(frozen=True)
    class Unfair(Control):
        def ticket(self, ticket, dense, module, seed):
            return changed(ticket)

    lottery = LotteryTicketCallback(rounds=1, amount=0.5, controls=[Unfair()], verbose=False)
    with pytest.raises(ConfigurationError, match=message):
        quiet_trainer(callbacks=[lottery]).fit(Model(), *loaders(digits))
    assert not lottery.records


@pytest.mark.parametrize("name", ["Ticket", "Lottery"])
def test_a_control_must_not_have_a_reserved_name(name):
    control = type(name, (ShuffleMask,), {})
    with pytest.raises(ConfigurationError, match=rf"control is '{name.lower()}'.*name='other'"):
        LotteryTicketCallback(rounds=1, amount=0.5, controls=[control()])


def test_a_control_cannot_change_the_tickets_of_the_run(digits):
    @dataclass(frozen=True)
    class Careless(Control):
        def ticket(self, ticket, dense, module, seed):
            for weight in (*ticket.weights.values(), *dense.weights.values()):
                weight.zero_()
            return ticket

    lottery = LotteryTicketCallback(rounds=1, amount=0.5, controls=[Careless(), ShuffleMask()], verbose=False)
    quiet_trainer(callbacks=[lottery]).fit(Model(), *loaders(digits))
    shuffled, dense = lottery.tickets["shuffle_mask"][1], lottery.tickets[0]
    for name, mask in shuffled.masks.items():
        assert torch.equal(shuffled.weights[name], dense.weights[name] * mask)
    assert all(weight.any() for name, weight in dense.weights.items() if name in dense.masks)


def test_infinity_in_the_ticket_is_allowed_in_the_control():
    module = nn.Linear(4, 4)
    module.bias.data[0] = -torch.inf
    dense, sparse = dense_and_sparse(module)
    made = make_control(ShuffleMask(), sparse, dense, module, seed=0)
    assert made.weights["bias"][0] == -torch.inf


@dataclass(frozen=True)
class EmptyRows(ShuffleMask):
    """Keeps the same number of weights, the first of each layer along a dimension."""

    dim: int = 0

    def ticket(self, ticket, dense, module, seed):
        masks = {}
        for name, mask in ticket.masks.items():
            rows = mask.movedim(self.dim, 0)
            first = rows.flatten().sort(descending=True)[0].view(rows.shape)
            masks[name] = first.movedim(0, self.dim).contiguous()
        return replace(ticket, masks=masks)


@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_controls_keep_a_weight_for_every_norm(digits, norm, dim):
    def network():
        return nn.Sequential(norm(nn.Linear(784, 32), dim=dim), nn.ReLU(), nn.Linear(32, 10))

    density = 0.01 if dim == 0 else 0.04
    lottery = LotteryTicketCallback(densities=[density], controls=[ShuffleMask()], verbose=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*diverged")
        quiet_trainer(callbacks=[lottery], max_epochs=1).fit(Model(network()), *loaders(digits))
    ticket, control = lottery.tickets[1], lottery.tickets["shuffle_mask"][1]
    name = next(name for name in ticket.masks if ticket.masks[name].numel() == 784 * 32)
    assert control.masks[name].any(dim=1 - dim).all()
    assert control.masks[name].sum() == ticket.masks[name].sum()
    assert not torch.equal(control.masks[name], ticket.masks[name])
    lottery = LotteryTicketCallback(densities=[density], controls=[EmptyRows(dim)], verbose=False)
    with pytest.raises(ConfigurationError, match=r"EmptyRows.* removes all weights of a norm that 'network.0"):
        quiet_trainer(callbacks=[lottery]).fit(Model(network()), *loaders(digits))


@pytest.mark.parametrize("kind", ["iterable", "manual", "schedule"])
def test_a_control_trains_as_long_as_its_ticket_even_if_the_length_of_a_round_is_unknown(digits, kind):
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(zip(*(part[:200] for part in digits), strict=True))

    train, val = loaders(digits)
    if kind == "iterable":
        train = DataLoader(Stream(), batch_size=32)
    others = [GradientAccumulationScheduler({0: 1, 4: 2})] if kind == "schedule" else []
    bird = EarlyBird(window=2, tolerance=0.9)
    lottery = LotteryTicketCallback(rounds=2, amount=0.5, stop=[bird], controls=[ShuffleMask()], verbose=False)
    model = Manual() if kind == "manual" else Model()
    quiet_trainer(callbacks=[lottery, *others], max_epochs=6).fit(model, train, val)
    ticket, control = lottery.records[1], lottery.records["shuffle_mask"][1]
    assert ticket.is_cut_short
    assert ticket.steps == control.steps < lottery.records[2].steps


@pytest.mark.parametrize("where", ["initialize", "ticket"])
def test_a_failing_control_restores_the_network(digits, where):
    def spoil(module):
        for parameter in module.parameters():
            parameter.data.fill_(7)
        for buffer in module.buffers():
            buffer.fill_(7)
        raise ZeroDivisionError

    class Spoiling(Control):
        def ticket(self, ticket, dense, module, seed):
            spoil(module)

    control = Reinitialize(initialize=spoil) if where == "initialize" else Spoiling()
    model = Model()
    before = copied(model)
    lottery = LotteryTicketCallback(rounds=1, amount=0.5, controls=[control], verbose=False)
    with pytest.raises(ZeroDivisionError):
        quiet_trainer(callbacks=[lottery]).fit(model, *loaders(digits))
    assert same_bits(copied(model), before)
