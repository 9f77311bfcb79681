"""Controls in real fits of a convolution network with BatchNorm, against what NumPy and plain PyTorch give."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from lightning_lottery import (
    ERK,
    ConfigurationError,
    Control,
    CoupledChannels,
    DenseAgain,
    Global,
    KeepSign,
    Layerwise,
    LearningRate,
    LotteryTicketCallback,
    NofM,
    RandomMask,
    SignOnly,
)
from tests.helpers.controlled import fitted
from tests.helpers.fits import needs, same_bits

PRUNABLE = ["network.convolution.weight", "network.hidden.weight", "network.output.weight"]
OTHERS = ["network.convolution.bias", "network.norm.weight", "network.norm.bias", "network.hidden.bias"]


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"controls": [RandomMask()], "pattern": NofM(2, 4)}, "RandomMask moves single weights and would break"),
        (
            {"controls": [DenseAgain()], "prune_at_init": True},
            "DenseAgain repeats the dense round, but prune_at_init",
        ),
        ({"controls": [RandomMask(), RandomMask()]}, "have the same name, 'random_mask'"),
        ({"controls": [RandomMask(Layerwise(min_density={"first": 0.1})), RandomMask()]}, "name='other_name'"),
    ],
)
def test_what_cannot_be_fair_is_refused_at_once(options, message):
    from lightning_lottery import SNIP

    with pytest.raises(ConfigurationError, match=message):
        LotteryTicketCallback(densities=[0.5], criterion=SNIP(), **options)


@pytest.mark.parametrize(
    ("scope", "message"),
    [
        ("erk", r"scope='erk' is not a scope"),
        (None, r"scope=None is not a scope"),
        (Layerwise(layer_amounts={"last": 0.1}), r"would apply layer_amounts once.*min_density.*ShuffleMask"),
    ],
)
def test_scopes_that_cannot_share_out_a_total_are_refused(scope, message):
    with pytest.raises(ConfigurationError, match=message):
        RandomMask(scope)


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


@pytest.mark.parametrize(
    ("control", "densities", "message"),
    [
        (
            RandomMask(Layerwise(min_density=0.3)),
            [0.5, 0.1],
            r"control RandomMask\(.* 648 weights: .*min_density",
        ),
        (RandomMask(ERK(min_density=0.2)), [0.5, 0.1], r"control RandomMask\(.*of 648 weights"),
    ],
)
def test_a_control_that_cannot_make_its_last_ticket_is_refused_at_once(digits, control, densities, message):
    with pytest.raises(ConfigurationError, match=message):
        fitted(digits, control, densities=densities)


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_random_masks_keep_a_weight_for_every_norm(digits):
    layers = (torch.nn.Linear(784, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    network = torch.nn.Sequential(*layers[:2], torch.nn.utils.parametrizations.weight_norm(layers[2]))
    lottery, _ = fitted(digits, RandomMask(), network=network, densities=[0.5, 0.02])
    made = lottery.tickets["random_mask"][2]
    assert made.kept == lottery.tickets[2].kept
    name = next(name for name in made.masks if made.masks[name].shape == (10, 32))
    assert made.masks[name].any(dim=1).all()


def test_sign_only_changes_nothing_that_only_follows_a_channel(digits):
    needs("torch_pruning")
    lottery, _ = fitted(digits, SignOnly(), pattern=CoupledChannels(), densities=[0.5])
    ticket, made = lottery.tickets[1], lottery.tickets["sign_only"][1]
    assert "network.convolution.bias" in ticket.following
    assert same_bits(made.masks, ticket.masks)
    for name in ("network.convolution.bias", "network.norm.weight", "network.hidden.bias"):
        np.testing.assert_array_equal(made.weights[name], ticket.weights[name])


@dataclass(frozen=True)
class Elsewhere(SignOnly):
    def rounds(self, controlled):
        return [7]


def test_a_control_of_a_round_that_does_not_exist_is_refused():
    with pytest.raises(ConfigurationError, match=r"returns \[7\], but 7 is not a round that trains.*\[0, 1\]"):
        LotteryTicketCallback(densities=[0.4], controls=[Elsewhere()])
