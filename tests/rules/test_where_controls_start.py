"""Controls with another start: in another order of the data, or from initialisation."""

import copy
import os
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer, seed_everything

from lightning_lottery import (
    ConfigurationError,
    DenseAgain,
    EarlyBird,
    FineTune,
    InitialTicket,
    LearningRate,
    LotteryTicketCallback,
    ShuffleMask,
    SignOnly,
    TicketCallback,
    ToInit,
    ToStep,
)
from tests.helpers.controlled import fitted
from tests.helpers.fits import LateSpy, Model, Net, Spy, copied, loaders, quiet_trainer, same_bits
from tests.helpers.resuming import Dropout


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


def test_without_a_later_point_an_initial_ticket_would_only_repeat_the_ticket():
    with pytest.raises(ConfigurationError, match=r"InitialTicket would only repeat.*rewind=ToInit\(\).*'1%'"):
        LotteryTicketCallback(densities=[0.4], controls=[InitialTicket()], rewind=ToInit())
    LotteryTicketCallback(densities=[0.4], controls=[InitialTicket()], rewind=ToStep(5))


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


@pytest.mark.parametrize("kind", ["given", "made anew", "reloaded"])
def test_dense_again_sees_another_order_also_with_generators_of_loaders(digits, tmp_path, kind):
    """Generators of the user, also such as are made anew with the same seed; and without a checkpoint."""
    generator = torch.Generator().manual_seed(42)
    train, val = loaders(digits, generator=generator)

    class WithLoader(Model):
        def train_dataloader(self):
            return loaders(digits, generator=torch.Generator().manual_seed(42))[0]

    def fit(folder, resume=False):
        seed_everything(4, verbose=False)
        generator.manual_seed(42)
        lottery = LotteryTicketCallback(densities=[0.4], controls=[DenseAgain()], dirpath=folder, verbose=False)
        options = {"reload_dataloaders_every_n_epochs": 1} if kind == "reloaded" else {}
        trainer = quiet_trainer(callbacks=[lottery, spy := Spy()], max_epochs=2, **options)
        model, data = (Model(), (train, val)) if kind == "given" else (WithLoader(), (None, val))
        trainer.fit(model, *data, ckpt_path=lottery.resume(trainer) if resume else None)
        return spy.order, lottery.records

    order, records = fit(tmp_path)
    assert order[0] == order[1] != order[2]
    lines = (tmp_path / "rounds.jsonl").read_text().splitlines()
    (tmp_path / "rounds.jsonl").write_text("\n".join(lines[:2]) + "\n")
    resumed, again = fit(tmp_path, resume=True)
    assert resumed == order[2:]
    assert again[2].metrics == records[2].metrics


def test_the_seed_of_the_user_stays_as_it_was(digits, monkeypatch):
    """Also one that is set after the callback is set up, as in LightningModule.setup."""

    class Seeding(Model):
        def setup(self, stage):
            monkeypatch.setenv("PL_GLOBAL_SEED", "77")

    seen = []

    class Look(Spy):
        def on_train_start(self, trainer, pl_module):
            seen.append(os.environ.get("PL_GLOBAL_SEED"))
            super().on_train_start(trainer, pl_module)

    lottery = LotteryTicketCallback(densities=[0.4], controls=[DenseAgain(), ShuffleMask()], verbose=False)
    quiet_trainer(callbacks=[lottery, Look()], max_epochs=1).fit(Seeding(), *loaders(digits))
    assert seen[0] == seen[1] == seen[3] == "77" != seen[2]
    assert os.environ["PL_GLOBAL_SEED"] == "77"


@pytest.mark.parametrize(("rewind", "steps"), [("1 epoch", 21), (FineTune(4, 0.01), 42)], ids=str)
def test_the_initial_ticket_of_a_shortened_round_trains_to_the_same_step(digits, rewind, steps):
    options = {"rewind": rewind, "densities": [0.4, 0.2], "max_epochs": 6, "control_rounds": [1]}
    lottery, _ = fitted(digits, InitialTicket(), stop=[EarlyBird(window=2, tolerance=0.9)], **options)
    assert lottery.records[1].is_cut_short
    assert lottery.records["initial_ticket"][1].steps == steps
    assert lottery.records[1].last_step == (21 if rewind == "1 epoch" else 14)


@dataclass(frozen=True)
class DenseSigns(SignOnly):
    """The dense network with the signs of its values alone."""

    def rounds(self, controlled):
        return [0]


def test_a_control_of_round_0_gets_initial_values_whatever_the_rewinding(digits):
    spy = LateSpy()
    lottery, initial = fitted(digits, DenseSigns(), spy=spy, rewind="5 steps", densities=[0.4])
    assert spy.began[-1] == (0, 0)
    made = lottery.tickets["dense_signs"][0].weights["network.hidden.weight"].numpy()
    values = initial["network.hidden.weight"]
    np.testing.assert_allclose(made, np.sign(values) * np.sqrt(np.mean(values.astype(np.float64) ** 2)), rtol=1e-6)
