"""Averages, momentum teachers and target networks inside a LightningModule."""

import copy
import json

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn

from lightning_lottery import LotteryTicketCallback, Reinitialize, ShuffleMask
from tests.helpers.copies import Averaged, Momentum
from tests.helpers.fits import Model, loaders, quiet_trainer
from tests.helpers.resuming import Stop
from tests.helpers.rounds import PRUNED, rounds


def ends(run, part):
    """The weights at the end of each round with pruned weights, and their masks."""
    for number, end in enumerate(run.spy.ends):
        masks = run.lottery.tickets[number].masks
        assert list(masks) == PRUNED
        for name, mask in masks.items():
            yield number, name, mask, end[name.replace("network", part)]


def check_students(run):
    """Only students are counted; they start from their initial values."""
    assert run.spy.steps == [14, 14, 14]
    assert [(r.kept, r.prunable) for r in run.lottery.records] == [(6484, 6484), (3242, 6484), (1621, 6484)]
    for number, start in enumerate(run.spy.starts):
        for name, mask in run.lottery.tickets[number].masks.items():
            assert torch.equal(start[name], torch.where(mask, run.initial[name], 0))


@pytest.mark.parametrize("frozen", [True, False])
def test_a_momentum_teacher_is_not_pruned_and_averages_masked_weights(digits, frozen):
    run = rounds(digits, Momentum(frozen))
    check_students(run)
    for number, name, mask, slow in ends(run, "teacher"):
        start, weight = run.spy.starts[number], run.spy.ends[number][name]
        assert name.replace("network", "teacher") not in run.lottery.tickets[number].masks
        assert torch.equal(start[name.replace("network", "teacher")], start[name]), "a copy of the masked weights"
        assert not slow[~mask].any()
        assert (slow[mask] != weight[mask]).any()


@pytest.mark.parametrize("late", [True, False])
def test_an_average_inside_the_module_is_not_pruned_and_averages_masked_weights(digits, late):
    run = rounds(digits, Averaged(late))
    check_students(run)
    for _, name, mask, average in ends(run, "average.module"):
        assert not average[~mask].any(), name
        assert average[mask].any()


@pytest.mark.parametrize("make", [Momentum, Averaged])
def test_each_round_is_a_fit_of_the_masked_student_alone(digits, make):
    model = make()
    plain = Model(copy.deepcopy(model.network))
    plain.configure_optimizers = lambda: model.configure_optimizers.__func__(plain)
    run, alone = rounds(digits, model), rounds(digits, plain)
    for first, second in zip(run.spy.ends, alone.spy.ends, strict=True):
        for name, value in second.items():
            assert torch.equal(first[name], value), name


def test_controls_change_the_copies_too(digits):
    class Starts(Callback):
        def on_train_start(self, trainer, pl_module):
            pairs = zip(pl_module.network.parameters(), pl_module.teacher.parameters(), strict=True)
            seen.append(all(map(torch.equal, *zip(*pairs, strict=True))))

    seen: list[bool] = []
    lottery = LotteryTicketCallback(rounds=1, amount=0.5, controls=[Reinitialize(), ShuffleMask()], verbose=False)
    quiet_trainer(callbacks=[lottery, Starts()], max_epochs=1).fit(Momentum(), *loaders(digits))
    assert seen == [True] * 4


@pytest.mark.parametrize("rewind", ["7 steps", "1 epoch"])
def test_from_a_later_point_a_teacher_keeps_its_values_and_gets_the_mask(digits, rewind):
    class Starts(Callback):
        def on_train_start(self, trainer, pl_module):
            starts.append({name: value.clone() for name, value in pl_module.state_dict().items()})

    starts: list[dict[str, torch.Tensor]] = []
    lottery = LotteryTicketCallback(rounds=1, amount=0.5, rewind=rewind, verbose=False)
    quiet_trainer(callbacks=[lottery, Starts()]).fit(Momentum(), *loaders(digits))
    point, ticket = lottery.tickets[1].weights, lottery.tickets[1]
    for name, mask in ticket.masks.items():
        slow = starts[1][name.replace("network", "teacher")]
        assert torch.equal(slow, point[name.replace("network", "teacher")])
        assert not slow[~mask].any()
        assert slow[mask].any()
        assert not torch.equal(slow, starts[1][name])


@pytest.mark.parametrize("checkpointing", [True, False])
def test_copies_are_known_in_a_resumed_run(digits, tmp_path, checkpointing):
    def fit(*others, folder="run"):
        lottery = LotteryTicketCallback(rounds=2, amount=0.5, dirpath=tmp_path / folder, verbose=False)
        trainer = quiet_trainer(
            callbacks=[lottery, *others], enable_checkpointing=checkpointing, default_root_dir=tmp_path / folder
        )
        torch.manual_seed(5)
        model = Momentum()
        trainer.fit(model, *loaders(digits), ckpt_path=lottery.resume(trainer))
        return lottery, model

    with pytest.raises(ZeroDivisionError):
        fit(Stop(1, 9))
    lottery, model = fit()
    expected, other = fit(folder="whole")
    assert [r.masks_hash for r in lottery.records] == [r.masks_hash for r in expected.records]
    assert all(map(torch.equal, model.state_dict().values(), other.state_dict().values()))


def test_a_teacher_with_other_initial_values_is_left_out_after_the_first_epoch(digits, capsys):
    class Other(Momentum):
        def __init__(self):
            super().__init__()
            for parameter in self.teacher.parameters():
                nn.init.normal_(parameter) if parameter.dim() > 1 else None

    lottery = LotteryTicketCallback(rounds=1, amount=0.5)
    quiet_trainer(callbacks=[lottery], max_epochs=2).fit(Other(), *loaders(digits))
    teachers = [name.replace("network", "teacher") for name in PRUNED]
    assert f"Not pruned from now on: {teachers}" in capsys.readouterr().out
    assert list(lottery.tickets[0].masks) == list(lottery.tickets[1].masks) == PRUNED
    assert [(record.kept, record.prunable) for record in lottery.records] == [(6484, 6484), (3242, 6484)]
    description = json.loads((lottery.run_folder / "lottery.json").read_text())
    assert list(description["prunable"]) == PRUNED
    assert description["counts"] == [6484, 3242]


class All(Momentum):
    """Passes all parameters to its optimizer, as is common. The teacher is not frozen."""

    def __init__(self):
        super().__init__(frozen=False)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01, weight_decay=1e-3)


class AtTheEnd(All):
    def on_train_batch_end(self, *_):
        pass

    def on_train_epoch_end(self):
        super().on_train_batch_end()


class AllAveraged(Averaged):
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


@pytest.mark.parametrize("make", [All, AtTheEnd, AllAveraged])
@pytest.mark.parametrize("epochs", [1, 2])
def test_copies_inside_an_optimizer_are_left_out_too(digits, make, epochs):
    run = rounds(digits, make(), max_epochs=epochs)
    part = "average.module" if make is AllAveraged else "teacher"
    for _, _, mask, slow in ends(run, part):
        assert not slow[~mask].any()
        assert slow[mask].any()
    assert [record.prunable for record in run.lottery.records] == [6484] * 3
