"""Stop rules, by themselves and in a fit."""

from dataclasses import dataclass

import pytest
import torch

from lightning_lottery import (
    ConfigurationError,
    EarlyBird,
    LearningRate,
    LotteryTicketCallback,
    Reinitialize,
    RoundRecord,
    ShuffleMask,
    Stop,
    Tolerance,
)
from lightning_lottery.rules.stopping import distance
from tests.helpers.fits import Model, copied, loaders, quiet_trainer, same_bits
from tests.helpers.rounds import PRUNED, Rounds, ranked


def records(*values):
    return [RoundRecord(n, "ticket", 0.5**n, 1, 1, 1, best_value=value) for n, value in enumerate(values)]


@pytest.mark.parametrize(
    ("values", "mode", "over"),
    [
        ((0.9,), "max", False),
        ((0.9, 0.895), "max", False),
        ((0.9, 0.88), "max", True),
        ((0.9, 0.95), "max", False),
        ((0.3, 0.305), "min", False),
        ((0.3, 0.32), "min", True),
        ((0.3, 0.1), "min", False),
        ((0.3, None), "min", True),
    ],
)
def test_rounds_end_when_a_value_falls_below_the_dense_one_by_more(values, mode, over):
    assert Tolerance(drop=0.01).after_round(records(*values), mode) is over


def mask(*ones, size=10):
    made = torch.zeros(size, dtype=torch.bool)
    made[list(ones)] = True
    return {"w": made}


def test_the_distance_is_the_fraction_of_survivors_that_differ():
    now = {"w": torch.arange(10) < 4}
    assert distance(mask(0, 1), mask(1, 2), now) == 2 / 4
    now = {"a": torch.ones(10, dtype=torch.bool), "b": torch.ones(30, dtype=torch.bool)}
    empty = mask(size=30)["w"]
    assert distance({"a": mask(0)["w"], "b": empty}, {"a": mask()["w"], "b": empty}, now) == 1 / 40


def test_early_bird_stops_when_the_newest_mask_is_close_to_all_others_in_the_window():
    rule, now = EarlyBird(window=3, tolerance=0.1), {"w": torch.ones(10, dtype=torch.bool)}
    far, near, same = mask(5, 6), mask(0), mask(0, 1)
    assert not rule.after_epoch([near, same], now)
    assert not rule.after_epoch([far, near, same], now)
    assert rule.after_epoch([same, near, same], now)
    assert rule.after_epoch([far, same, near, same], now)
    assert not EarlyBird(window=3, tolerance=0).after_epoch([same, near, same], now)
    assert rule.window == 3


@pytest.mark.parametrize("density", [1.0, 0.3, 0.05])
def test_disjoint_masks_are_never_stable(density):
    generator = torch.Generator().manual_seed(0)
    now = {"w": torch.rand(10_000, generator=generator) < density}
    masks = [{"w": now["w"] & (torch.rand(10_000, generator=generator) < 0.8)} for _ in range(5)]
    assert not EarlyBird().after_epoch(masks, now)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Tolerance(drop=-0.1), r"drop=-0.1 must be a number of at least 0"),
        (lambda: Tolerance(drop="1%"), "drop='1%'"),
        (lambda: EarlyBird(window=1), "window=1 must be an integer of at least 2"),
        (lambda: EarlyBird(tolerance=1), "tolerance=1 must be a number from 0 to below 1"),
    ],
)
def test_arguments_out_of_range_are_refused(make, message):
    with pytest.raises(ConfigurationError, match=message):
        make()


def test_early_birds_end_rounds_and_say_what_they_saved(digits, capsys):
    lottery = LotteryTicketCallback(rounds=2, amount=0.3, stop=[EarlyBird(window=2, tolerance=0.15)])
    done = Rounds(Model(), lambda: loaders(digits), lottery=lottery, options={"max_epochs": 6}).fit()
    first, second, last = lottery.records
    assert first.steps < 42
    assert all(record.steps + record.saved_steps == 42 for record in lottery.records)
    assert (last.steps, last.saved_steps) == (42, 0), "after the last round comes no pruning"
    said = capsys.readouterr().out
    assert f"A stop rule saved {first.saved_steps} of 42 steps" in said
    total = first.saved_steps + second.saved_steps
    assert f"Stop rules saved {100 * total / 126:.0f} % of the steps" in said
    # It is stable: after each of the last two epochs, pruning would have removed nearly the same weights.
    one, two = (
        ranked({n: e[n].abs() for n in PRUNED}, lottery.tickets[0].masks, round(0.3 * first.kept))
        for e in _epochs(digits, first.steps // 7)
    )
    different = sum(int((one[n] ^ two[n]).sum()) for n in PRUNED)
    assert different / first.prunable <= 0.15
    assert all(torch.equal(lottery.tickets[1].masks[n], two[n]) for n in PRUNED)
    assert len(done.spy.ends) == 3


def _epochs(digits, number):
    """The weights of the dense training after its last two epochs, without the package."""
    ends = []
    for epochs in (number - 1, number):
        torch.manual_seed(0)
        model = Model()
        torch.manual_seed(3)
        quiet_trainer(max_epochs=epochs).fit(model, *loaders(digits))
        ends.append(copied(model))
    return ends


@dataclass(frozen=True)
class UpToTwo(Stop):
    def after_round(self, records, mode):
        return len(records) > 2


def test_a_rule_ends_the_rounds_and_the_module_has_the_last_ticket(digits, capsys):
    lottery = LotteryTicketCallback(rounds=5, amount=0.3, stop=[UpToTwo()])
    done = Rounds(Model(), lambda: loaders(digits), lottery=lottery).fit()
    assert [record.round for record in lottery.records] == [0, 1, 2]
    assert "No further ticket: UpToTwo() ended the search." in capsys.readouterr().out
    assert same_bits(done.spy.ends[-1], copied(done.model))


def test_controls_train_as_long_as_their_tickets(digits):
    lottery = LotteryTicketCallback(
        rounds=2,
        amount=0.3,
        stop=[EarlyBird(window=2, tolerance=0.2)],
        controls=[Reinitialize(), ShuffleMask()],
        control_rounds=[1],
        verbose=False,
    )
    Rounds(Model(), lambda: loaders(digits), lottery=lottery, options={"max_epochs": 6}).fit()
    assert lottery.records[1].saved_steps > 0
    for control in ("reinitialize", "shuffle_mask"):
        assert lottery.records[control][1].steps == lottery.records[1].steps


def test_round_0_is_not_shortened_before_the_rewind_point(digits):
    lottery = LotteryTicketCallback(
        rounds=1, amount=0.3, stop=[EarlyBird(window=2, tolerance=0.9)], rewind="4 epochs", verbose=False
    )
    quiet_trainer(callbacks=[lottery], max_epochs=6).fit(Model(), *loaders(digits))
    assert lottery.records[0].steps == 5 * 7
    assert lottery.records[1].steps == 2 * 7


def test_a_round_after_which_nothing_is_removed_is_not_shortened(digits):
    bird = EarlyBird(window=2, tolerance=0.9)
    lottery = LotteryTicketCallback(densities=[0.5, 0.5, 0.2], rewind=LearningRate(), stop=[bird], verbose=False)
    quiet_trainer(callbacks=[lottery], max_epochs=4).fit(Model(), *loaders(digits))
    assert [record.is_cut_short for record in lottery.records] == [True, False, True, False]
