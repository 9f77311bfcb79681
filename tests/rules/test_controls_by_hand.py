"""Controls in real fits of a convolution network with BatchNorm, against what NumPy and plain PyTorch give."""

import copy
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer, seed_everything

from lightning_lottery import (
    ERK,
    ConfigurationError,
    Control,
    DenseAgain,
    FineTune,
    Global,
    InitialTicket,
    KeepSign,
    Layerwise,
    LearningRate,
    LotteryTicketCallback,
    NofM,
    RandomMask,
    ShuffleMask,
    SignOnly,
    TicketCallback,
    ToInit,
    ToStep,
)
from tests.helpers.fits import LateSpy, Model, Net, Spy, copied, loaders, quiet_trainer, same_bits
from tests.helpers.resuming import Dropout

PRUNABLE = ["network.convolution.weight", "network.hidden.weight", "network.output.weight"]
OTHERS = ["network.convolution.bias", "network.norm.weight", "network.norm.bias", "network.hidden.bias"]


def fitted(digits, *controls, spy=None, network=None, max_epochs=1, **options):
    """A run with controls, and the initial values of its network."""
    seed_everything(4, verbose=False)
    model = Model(network or Net())
    initial = {name: tensor.numpy() for name, tensor in copied(model).items()}
    options = {"densities": [0.4, 0.1], **options}
    lottery = LotteryTicketCallback(controls=list(controls), verbose=False, **options)
    others = [] if spy is None else [spy]
    quiet_trainer(callbacks=[lottery, *others], max_epochs=max_epochs).fit(model, *loaders(digits))
    return lottery, initial


def arrays(tensors):
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def test_sign_only(digits):
    lottery, initial = fitted(digits, SignOnly())
    for number in (1, 2):
        ticket, made = lottery.tickets[number], lottery.tickets["sign_only"][number]
        assert same_bits(made.masks, ticket.masks)
        for name in PRUNABLE:
            scale = np.sqrt(np.mean(initial[name].astype(np.float64) ** 2))
            expected = np.sign(initial[name]) * scale * ticket.masks[name].numpy()
            np.testing.assert_allclose(made.weights[name].numpy(), expected, rtol=1e-6)
        for name in [*OTHERS, "network.norm.running_var", "network.output.bias"]:
            np.testing.assert_array_equal(made.weights[name].numpy(), initial[name])


def test_keep_sign(digits):
    lottery, initial = fitted(digits, KeepSign())
    first, second = (arrays(lottery.tickets["keep_sign"][number].weights) for number in (1, 2))
    both = lottery.tickets[2].masks["network.hidden.weight"].numpy()
    assert not (first["network.hidden.weight"] == second["network.hidden.weight"])[both].any(), "drawn anew"
    for made, number in ((first, 1), (second, 2)):
        masks = arrays(lottery.tickets[number].masks)
        for name in [*PRUNABLE, "network.convolution.bias", "network.hidden.bias"]:
            alive = masks.get(name, np.ones_like(initial[name], dtype=bool))
            np.testing.assert_array_equal(np.sign(made[name])[alive], np.sign(initial[name])[alive])
            assert not np.isin(made[name][alive], initial[name]).any()
            assert not made[name][~alive].any()
        hidden = np.abs(made["network.hidden.weight"][masks["network.hidden.weight"]])
        bound = 1 / np.sqrt(256)  # uniform in PyTorch's default, so that the mean magnitude is half of the bound
        assert hidden.max() <= bound
        assert hidden.mean() == pytest.approx(bound / 2, rel=0.06)
        np.testing.assert_array_equal(made["network.norm.weight"], np.ones(4))
        np.testing.assert_array_equal(made["network.norm.bias"], np.zeros(4))


def test_keep_sign_draws_by_the_given_function(digits):
    def normal(module):
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.7)

    lottery, initial = fitted(digits, KeepSign(initialize=normal), densities=[0.4])
    made, mask = (
        getattr(lottery.tickets["keep_sign"][1], of)["network.hidden.weight"] for of in ("weights", "masks")
    )
    assert made[mask].abs().mean() == pytest.approx(0.7 * np.sqrt(2 / np.pi), rel=0.05)
    np.testing.assert_array_equal(made[mask].sign().numpy(), np.sign(initial["network.hidden.weight"])[mask])


def test_random_masks_keep_as_many_weights_shared_out_by_the_scope(digits):
    controls = [RandomMask(), RandomMask(ERK()), RandomMask(Global(), name="anywhere")]
    lottery, initial = fitted(digits, *controls)
    assert lottery.records.branches() == ["ticket", "random_mask", "random_mask_erk", "anywhere"]
    sizes = np.array([100, 6144, 240])
    for number in (1, 2):
        ticket = lottery.tickets[number]
        kept = {}
        for branch in ("random_mask", "random_mask_erk", "anywhere"):
            made = lottery.tickets[branch][number]
            assert made.kept == ticket.kept
            kept[branch] = np.array([int(made.masks[name].sum()) for name in PRUNABLE])
            for name in PRUNABLE:
                np.testing.assert_array_equal(made.weights[name].numpy(), initial[name] * made.masks[name].numpy())
                share = float(ticket.masks[name].float().mean() * made.masks[name].float().mean())
                overlap = float((ticket.masks[name] & made.masks[name]).float().mean())
                assert overlap == pytest.approx(share, abs=0.07), "independent of the ticket"
        assert np.abs(kept["random_mask"] - sizes * ticket.density).max() <= 1.01
        assert np.abs(kept["anywhere"] - sizes * ticket.density).max() <= 5 * np.sqrt(6484 * 0.25)
        raw = np.array([(4 + 1 + 5 + 5) / 100, (24 + 256) / 6144, (10 + 24) / 240])  # sums over products
        free = np.ones(3, dtype=bool)
        for _ in range(3):
            epsilon = (ticket.kept - sizes[~free].sum()) / (raw * sizes)[free].sum()
            free &= ~(free & (epsilon * raw >= 1))
        expected = np.where(free, epsilon * raw, 1.0) * sizes
        assert np.abs(kept["random_mask_erk"] - expected).max() <= 1


def test_random_masks_differ_between_rounds_and_layers_and_repeat_with_the_seed(digits):
    first, _ = fitted(digits, RandomMask(), densities=[0.5, 0.5], rewind=LearningRate())
    again, _ = fitted(digits, RandomMask(), densities=[0.5, 0.5], rewind=LearningRate())
    masks = [first.tickets["random_mask"][number].masks for number in (1, 2)]
    assert same_bits(masks[0], again.tickets["random_mask"][1].masks)
    agreement = float((masks[0][PRUNABLE[1]] == masks[1][PRUNABLE[1]]).float().mean())
    assert agreement == pytest.approx(0.5, abs=0.03)


def test_random_masks_move_only_among_the_survivors_of_a_given_ticket(digits):
    found, _ = fitted(digits, densities=[0.3])
    start = found.tickets[1]
    lottery, _ = fitted(digits, RandomMask(), start=start, densities=[0.1])
    made = lottery.tickets["random_mask"][1]
    assert made.kept == lottery.tickets[1].kept
    assert all(not (made.masks[name] & ~start.masks[name]).any() for name in PRUNABLE)


def test_dense_again_is_the_dense_training_in_another_order(digits):
    spy, network = Spy(), Dropout()
    before = copied(network)
    lottery, _ = fitted(digits, DenseAgain(), ShuffleMask(), spy=spy, network=network, control_rounds=[2])
    assert [record.id.name for record in lottery.records] == [
        *("round_00", "round_01", "round_02", "round_00_dense_again", "round_02_shuffle_mask")
    ]
    again, dense = lottery.records["dense_again"][0], lottery.records[0]
    assert (again.density, again.kept, again.steps) == (1, dense.kept, dense.steps)
    assert same_bits(lottery.tickets["dense_again"][0].weights, lottery.tickets[0].weights)
    assert same_bits(spy.starts[3], {f"network.{name}": tensor for name, tensor in before.items()})
    orders = [tuple(order) for order in spy.order]
    assert orders[0] == orders[1] == orders[2] == orders[4]
    assert orders[3] != orders[0]
    assert not same_bits(spy.ends[0], spy.ends[3])
    # The same as a fresh fit with the same random numbers.
    repeated, _ = fitted(digits, DenseAgain(), network=copy.deepcopy(Dropout()), densities=[0.5])
    assert repeated.records["dense_again"][0].metrics != repeated.records[0].metrics


@pytest.mark.parametrize("rewind", ["5 steps", LearningRate(to="1 epoch"), FineTune(3, 0.01)], ids=str)
@pytest.mark.parametrize("order", [True, False])
def test_dense_again_starts_at_initialisation_whatever_the_rewinding(digits, rewind, order):
    spy = LateSpy()
    options = {"rewind": rewind, "same_data_order": order, "max_epochs": 2, "densities": [0.4]}
    lottery, initial = fitted(digits, DenseAgain(), spy=spy, **options)
    assert spy.began[-1] == (0, 0)
    assert spy.steps[-1] == spy.steps[0] == 14
    for name, value in spy.starts[-1].items():
        np.testing.assert_array_equal(value.numpy(), initial[name])
    assert lottery.records["dense_again"][0].metrics != lottery.records[0].metrics


def test_a_training_without_random_numbers_shows_no_noise_and_says_so(digits):
    train, val = loaders(digits, shuffle=False)
    lottery = LotteryTicketCallback(densities=[0.4], controls=[DenseAgain()], verbose=False)
    with pytest.warns(UserWarning, match="round_00_dense_again gave the same metrics as round_00.*Shuffle"):
        quiet_trainer(callbacks=[lottery], max_epochs=1).fit(Model(), train, val)


@pytest.mark.parametrize("rewind", ["5 steps", "1 epoch", LearningRate(to="1 epoch"), FineTune(3, 0.01)], ids=str)
def test_the_initial_ticket_trains_from_initialisation(digits, tmp_path, rewind):
    """It is the fresh fit of its mask with initial values, as TicketCallback trains it, also by its path."""
    spy, alone = LateSpy(), Spy()
    lottery, initial = fitted(
        digits, InitialTicket(), spy=spy, rewind=rewind, max_epochs=2, dirpath=tmp_path, densities=[0.4]
    )
    ticket, made = lottery.tickets[1], lottery.tickets["initial_ticket"][1]
    assert same_bits(made.masks, ticket.masks)
    for name, value in made.weights.items():
        mask = made.masks[name].numpy() if name in made.masks else 1
        np.testing.assert_array_equal(value.numpy(), initial[name] * mask)
    assert not same_bits(made.weights, ticket.weights)
    assert spy.began[-1] == (0, 0)
    assert spy.steps[-1] == 14
    seed_everything(4, verbose=False)
    model = Model(Net())
    callback = TicketCallback(tmp_path / "tickets" / "round_01_initial_ticket.safetensors")
    quiet_trainer(callbacks=[callback, alone], max_epochs=2).fit(model, *loaders(digits))
    assert same_bits(alone.starts[0], spy.starts[-1])
    assert same_bits(alone.ends[0], spy.ends[-1])


def test_a_custom_rule_to_initial_weights_and_a_later_schedule_has_an_initial_ticket(digits):
    with pytest.raises(ConfigurationError, match=r"InitialTicket would only repeat.*rewind=ToInit\(\).*'1%'"):
        LotteryTicketCallback(densities=[0.4], controls=[InitialTicket()], rewind=ToInit())
    LotteryTicketCallback(densities=[0.4], controls=[InitialTicket()], rewind=ToStep(5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"controls": [RandomMask()], "pattern": NofM(2, 4)}, "RandomMask moves single weights and would break"),
        (
            {"controls": [DenseAgain()], "prune_at_init": True},
            "DenseAgain repeats the dense round, but prune_at_init",
        ),
        ({"controls": [RandomMask(), RandomMask()]}, "have the same name, 'random_mask'"),
        ({"controls": [RandomMask(Layerwise(layer_amounts={"last": 0.1})), RandomMask()]}, "name='other_name'"),
    ],
)
def test_what_cannot_be_fair_is_refused_at_once(options, message):
    from lightning_lottery import SNIP

    with pytest.raises(ConfigurationError, match=message):
        LotteryTicketCallback(densities=[0.5], criterion=SNIP(), **options)


def test_a_scope_that_is_none_is_refused():
    with pytest.raises(ConfigurationError, match=r"scope='erk' is not a scope"):
        RandomMask(scope="erk")


def test_a_scope_that_does_not_know_a_layer_is_refused_before_training(digits):
    with pytest.raises(ConfigurationError, match="contains 'conv', which matches no prunable"):
        fitted(digits, RandomMask(ERK(min_density={"conv": 0.5})))


@dataclass(frozen=True)
class Half(Control):
    """The ticket with half of its weights: another size, on purpose."""

    keeps_size = False

    def ticket(self, ticket, dense, module, seed):
        masks = {
            name: mask & (torch.arange(mask.numel()).view(mask.shape) % 2 == 0)
            for name, mask in ticket.masks.items()
        }
        return replace(ticket, masks=masks)


def test_a_control_may_have_another_size_if_it_says_so(digits):
    lottery, _ = fitted(digits, Half(), densities=[0.5])
    record = lottery.records["half"][1]
    assert 0.4 < record.kept / lottery.records[1].kept < 0.6


@pytest.mark.parametrize("at", [2, 9])
def test_controls_resume_bit_for_bit(digits, tmp_path, at):
    """DenseAgain in its own data order, and InitialTicket from the start of the schedule."""
    from lightning.pytorch.callbacks import ModelCheckpoint

    def make(folder, spy):
        seed_everything(4, verbose=False)
        lottery = LotteryTicketCallback(
            densities=[0.4],
            rewind="5 steps",
            controls=[DenseAgain(), InitialTicket()],
            dirpath=folder,
            verbose=False,
        )
        saving = ModelCheckpoint(folder / "checkpoints", every_n_train_steps=1, save_top_k=-1, filename="{step}")
        trainer: Trainer = quiet_trainer(callbacks=[lottery, spy, saving], enable_checkpointing=True, max_epochs=2)
        return lottery, trainer, Model(Dropout())

    whole, spy = tmp_path / "whole", LateSpy()
    lottery, trainer, model = make(whole, spy)
    trainer.fit(model, *loaders(digits))
    expected = [(record.id, record.metrics, record.curve) for record in lottery.records]
    for name in ("round_00_dense_again", "round_01_initial_ticket"):
        lottery, trainer, model = make(whole, other := LateSpy())
        checkpoint = whole / "checkpoints" / name / f"step={at}.ckpt"
        lines = (whole / "rounds.jsonl").read_text().splitlines()
        place = [record[0].name for record in expected].index(name)
        (whole / "rounds.jsonl").write_text("\n".join(lines[:place]) + "\n")
        trainer.fit(model, *loaders(digits), ckpt_path=checkpoint)
        assert [(record.id, record.metrics, record.curve) for record in lottery.records] == expected
        assert same_bits(other.ends[-1], spy.ends[-1])
