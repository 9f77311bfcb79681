"""TicketCallback: one ticket, trained alone as in its round."""

import copy
import pickle

import pytest
import torch
from lightning.pytorch import Callback, callbacks, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint, ModelPruning, RichProgressBar, TQDMProgressBar
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_lottery import (
    ConfigurationError,
    FineTune,
    LearningRate,
    LotteryTicketCallback,
    ShuffleMask,
    Ticket,
    TicketCallback,
    TicketError,
    ToEpoch,
    ToStep,
    TrainingError,
)
from lightning_lottery.cli.main import main
from lightning_lottery.vision import Classifier, LeNet300100
from tests.helpers.fits import LateSpy, Model, Net, copied, loaders, quiet_trainer, same_bits
from tests.helpers.scripts import short_fit
from tests.helpers.tickets import ticket_of


class Dropout(Net):
    """Draws random numbers, and has a state besides the weights."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()), persistent=False)

    def forward(self, images):
        self.calls += self.training
        return nn.functional.dropout(super().forward(images), 0.1, self.training) / (1 + 0.01 * self.calls)


def in_order(digits):
    """Data without random numbers, for fits that Lightning itself resumes bit for bit."""
    images, labels = digits
    data = DataLoader(TensorDataset(images[:200], labels[:200]), 32)
    return data, DataLoader(TensorDataset(images[200:300], labels[200:300]), 100)


LATE = {
    "within an epoch": ToStep(5),
    "between epochs": ToEpoch(1),
    "fresh optimizers": ToStep(9, optimizer="fresh"),
    "trained weights, later schedule": LearningRate(to="9 steps"),
    "trained weights": LearningRate(),
}


@pytest.mark.parametrize("scheduler", ["none", "cycle"])
@pytest.mark.parametrize("rule", LATE)
def test_a_ticket_in_its_run_folder_starts_where_its_round_has_started(digits, rule, scheduler):
    def fit(callback, network, seed):
        spy = LateSpy()
        seed_everything(seed, verbose=False)
        model = Model(network, optimizer="adam", scheduler=scheduler)
        quiet_trainer(callbacks=[callback, spy], max_epochs=3).fit(model, *loaders(digits))
        return spy

    lottery = LotteryTicketCallback(densities=[0.5, 0.2], rewind=LATE[rule], verbose=False)
    rounds = fit(lottery, Dropout(), seed=3)
    # Rounds that start at step 0 draw numbers of this fit, and later ones those of the run folder.
    seed = 3 if rule == "trained weights" else 4
    for number in (1, 2):
        alone = fit(TicketCallback(lottery.run_folder / f"tickets/round_0{number}.safetensors"), Dropout(), seed)
        assert alone.began == [rounds.began[number]]
        assert alone.order == [rounds.order[number]]
        assert same_bits(alone.starts[0], rounds.starts[number])
        assert same_bits(alone.ends[0], rounds.ends[number])


def test_a_fine_tuned_ticket_trains_alike_with_the_same_length_and_learning_rate(digits):
    class Constant(Model):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-3)

    lottery = LotteryTicketCallback(densities=[0.5, 0.2], rewind=FineTune(epochs=1, lr=0.02), verbose=False)
    rounds, alone = LateSpy(), LateSpy()
    seed_everything(3, verbose=False)
    quiet_trainer(callbacks=[lottery, rounds]).fit(Model(), *loaders(digits))
    callback = TicketCallback(lottery.run_folder / "tickets" / "round_02.safetensors")
    seed_everything(3, verbose=False)
    quiet_trainer(callbacks=[callback, alone], max_epochs=1).fit(Constant(), *loaders(digits))
    assert same_bits(alone.ends[0], rounds.ends[2])


def test_a_control_trains_alone_as_in_its_fit(digits):
    lottery = LotteryTicketCallback(densities=[0.3], rewind="5 steps", controls=[ShuffleMask()], verbose=False)
    rounds, alone = LateSpy(), LateSpy()
    quiet_trainer(callbacks=[lottery, rounds]).fit(Model(), *loaders(digits))
    path = lottery.run_folder / "tickets" / "round_01_shuffle_mask.safetensors"
    quiet_trainer(callbacks=[TicketCallback(path), alone]).fit(Model(), *loaders(digits))
    assert same_bits(alone.ends[0], rounds.ends[2])


def test_without_its_run_folder_a_schedule_starts_at_step_0_and_a_line_says_so(digits, capsys):
    lottery = LotteryTicketCallback(densities=[0.3], rewind="5 steps", verbose=False)
    quiet_trainer(callbacks=[lottery]).fit(Model(), *loaders(digits))
    path = lottery.run_folder / "tickets" / "round_01.safetensors"
    spies = []
    for ticket in (path, Ticket.load(path)):
        spies.append(LateSpy())
        quiet_trainer(callbacks=[TicketCallback(ticket), spies[-1]]).fit(Model(), *loaders(digits))
    assert [spy.began for spy in spies] == [[(0, 5)], [(0, 0)]]
    assert same_bits(spies[0].starts[0], spies[1].starts[0])
    with_schedule, alone = [line for line in capsys.readouterr().out.splitlines() if "Training a ticket" in line]
    size = f"{lottery.tickets[1].kept:,} of {lottery.tickets[1].prunable:,} prunable weights, density 0.3000."
    assert with_schedule == f"Training a ticket like round_01 in {path.parent.parent}, with its schedule: {size}"
    rule = "ToStep(step='5 steps', optimizer='restore')"
    assert f"from its starting values (of {rule}; the schedule starts at step 0): {size}" in alone


class Tuned(Model):
    """With any optimizer."""

    def __init__(self, make):
        super().__init__()
        self.make = make

    def configure_optimizers(self):
        return self.make(self.parameters())


SGD = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3}


@pytest.mark.parametrize(
    ("make", "difference"),
    [
        (lambda p: torch.optim.SGD(p, **{**SGD, "lr": 0.003}), "lr was 0.1 and is now 0.003"),
        (lambda p: torch.optim.SGD(p, **{**SGD, "weight_decay": 0.3}), "weight_decay was 0.001 and is now 0.3"),
        (lambda p: torch.optim.Adam(p, lr=0.1), "momentum was 0.9 and is now not there"),
        (lambda p: torch.optim.SGD(list(p)[:2], **SGD), "params was 8 and is now 2"),
    ],
)
@pytest.mark.parametrize("rule", [ToStep(5), ToStep(5, optimizer="fresh")], ids=repr)
def test_another_optimizer_at_a_later_point_is_an_error_that_names_the_difference(digits, rule, make, difference):
    lottery = LotteryTicketCallback(densities=[0.3], rewind=rule, verbose=False)
    quiet_trainer(callbacks=[lottery]).fit(Model(), *loaders(digits))
    path, spy = lottery.run_folder / "tickets" / "round_01.safetensors", LateSpy()
    with pytest.raises(ConfigurationError, match=rf"{difference}.*TicketCallback\(Ticket.load\(path\)\)"):
        quiet_trainer(callbacks=[TicketCallback(path), spy]).fit(Tuned(make), *loaders(digits))
    assert not spy.starts
    quiet_trainer(callbacks=[TicketCallback(Ticket.load(path))]).fit(Tuned(make), *loaders(digits))


def test_another_schedule_or_shorter_training_at_a_later_point_is_an_error(digits):
    lottery = LotteryTicketCallback(densities=[0.3], rewind="5 steps", verbose=False)
    quiet_trainer(callbacks=[lottery]).fit(Model(scheduler="step"), *loaders(digits))
    path = lottery.run_folder / "tickets" / "round_01.safetensors"

    def fit(scheduler="step", batch_size=32, **options):
        model = Model(scheduler=scheduler)
        quiet_trainer(callbacks=[TicketCallback(path)], **options).fit(
            model, *loaders(digits, batch_size=batch_size)
        )
        return model

    with pytest.raises(ConfigurationError, match="2 parameter groups and schedulers became 1"):
        fit("none")
    with pytest.raises(ConfigurationError, match="is now"):
        fit("cycle")
    for shorter in ({"max_steps": 5}, {"batch_size": 50}, {"limit_train_batches": 3, "max_epochs": 4}):
        with pytest.raises(ConfigurationError, match=r"started at step 5 in epoch 0, where .* train longer"):
            fit(**shorter)
    assert_masked(fit(fast_dev_run=True), Ticket.load(path))


def test_frozen_layers_stay_frozen_at_a_later_point(digits):
    lottery = LotteryTicketCallback(densities=[0.3], rewind="5 steps", verbose=False)
    quiet_trainer(callbacks=[lottery]).fit(Model(), *loaders(digits))
    ticket, model = lottery.tickets[1], Model()
    model.network.hidden.requires_grad_(False)
    callback = TicketCallback(lottery.run_folder / "tickets" / "round_01.safetensors")
    quiet_trainer(callbacks=[callback]).fit(model, *loaders(digits))
    assert not model.network.hidden.weight.requires_grad
    assert torch.equal(model.network.hidden.weight, ticket.weights["network.hidden.weight"])
    assert not torch.equal(model.network.output.weight, ticket.weights["network.output.weight"])


def test_a_second_fit_keeps_weights_of_steps_that_lightning_does_not_count(digits):
    class Uncounted(Model):
        automatic_optimization = False

        def training_step(self, batch, batch_idx):
            optimizer = self.optimizers(use_pl_optimizer=False)
            optimizer.zero_grad()
            self.manual_backward(super().training_step(batch, batch_idx))
            optimizer.step()

    model = Uncounted()
    trainer = quiet_trainer(callbacks=[TicketCallback(ticket_of(Model()))])
    trainer.fit(model, *loaders(digits))
    trained = copied(model)
    trainer.fit(model, *loaders(digits))
    assert same_bits(copied(model), trained)


def assert_masked(model, ticket):
    for name, mask in ticket.masks.items():
        assert not model.get_parameter(name)[~mask].any(), name
        assert model.get_parameter(name)[mask].any(), name


AVERAGES = {
    "swa": lambda: callbacks.StochasticWeightAveraging(0.05, swa_epoch_start=1),
    **(
        {"ema": lambda: callbacks.EMAWeightAveraging(decay=0.9)}
        if hasattr(callbacks, "EMAWeightAveraging")
        else {}
    ),
}


@pytest.mark.parametrize("average", AVERAGES)
def test_averages_of_weights_start_from_the_ticket(digits, average):
    class Validated(Callback):
        def on_validation_batch_start(self, trainer, pl_module, *_):
            if not trainer.sanity_checking:
                seen[-1].append(copied(pl_module))

    seen, ends = [], []
    lottery = LotteryTicketCallback(densities=[0.5, 0.2], verbose=False)
    for callback in (lottery, "alone"):
        seen.append([])
        model, spy = Model(), LateSpy()
        path = None if callback is lottery else lottery.run_folder / "tickets" / "round_02.safetensors"
        ours = lottery if path is None else TicketCallback(path, verbose=False)
        seed_everything(3, verbose=False)
        trainer = quiet_trainer(callbacks=[AVERAGES[average](), ours, Validated(), spy], max_epochs=3)
        trainer.fit(model, *loaders(digits))
        ends.append(copied(model))
    last = seen[0][-len(seen[1]) :]
    assert all(same_bits(*pair) for pair in zip(last, seen[1], strict=True))
    assert same_bits(*ends)
    assert_masked(model, ours.ticket)


@pytest.mark.skipif("ema" not in AVERAGES, reason="Lightning 2.5.3 and later have EMAWeightAveraging.")
def test_resuming_keeps_averages_of_weights(digits, tmp_path):
    def fit(epochs, **options):
        model = Model(scheduler="step")
        trainer = quiet_trainer(callbacks=[AVERAGES["ema"](), TicketCallback(ticket)], max_epochs=epochs)
        trainer.fit(model, *in_order(digits), **options)
        return model

    ticket = ticket_of(Model())
    whole = fit(3)
    saved = quiet_trainer(
        callbacks=[AVERAGES["ema"](), TicketCallback(ticket), ModelCheckpoint(tmp_path)],
        enable_checkpointing=True,
        max_epochs=2,
    )
    saved.fit(Model(scheduler="step"), *in_order(digits))
    resumed = fit(3, ckpt_path=saved.checkpoint_callback.best_model_path)
    assert same_bits(copied(resumed), copied(whole))
    assert_masked(resumed, ticket)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_model_s_own_values_are_trained_under_the_mask(digits, optimizer):
    model, ticket, spy = Model(optimizer=optimizer), ticket_of(Model(), density=0.2), LateSpy()
    before = copied(model)
    quiet_trainer(callbacks=[TicketCallback(ticket, weights="model"), spy]).fit(model, *loaders(digits))
    for name, value in spy.starts[0].items():
        mask = ticket.masks.get(name)
        assert torch.equal(value, before[name] if mask is None else torch.where(mask, before[name], 0))
    assert_masked(model, ticket)
    assert not torch.equal(model.network.hidden.weight, spy.starts[0]["network.hidden.weight"])


def test_the_ticket_is_not_changed_by_training(digits):
    ticket = ticket_of(Model())
    before = ticket.fingerprint
    callback = TicketCallback(ticket)
    quiet_trainer(callbacks=[callback]).fit(Model(), *loaders(digits))
    assert callback.ticket.fingerprint == before


def test_resuming_keeps_mask_and_weights(digits, tmp_path):
    ticket, starts = ticket_of(Model()), LateSpy()
    whole, half, resumed = (Model(optimizer="adam", scheduler="step") for _ in range(3))
    quiet_trainer(callbacks=[TicketCallback(ticket)], max_epochs=3).fit(whole, *in_order(digits))
    trainer = quiet_trainer(
        callbacks=[TicketCallback(ticket), ModelCheckpoint(tmp_path)], enable_checkpointing=True, max_epochs=2
    )
    trainer.fit(half, *in_order(digits))
    path = trainer.checkpoint_callback.best_model_path
    trainer = quiet_trainer(callbacks=[TicketCallback(ticket), starts], max_epochs=3)
    trainer.fit(resumed, *in_order(digits), ckpt_path=path)
    assert starts.began == [(2, 14)]
    assert same_bits(starts.starts[0], copied(half))
    assert same_bits(copied(resumed), copied(whole))
    assert_masked(resumed, ticket)


def test_a_checkpoint_contains_the_plain_model(digits, tmp_path):
    ticket, model = ticket_of(Model()), Model()
    trainer = quiet_trainer(callbacks=[TicketCallback(ticket)])
    trainer.fit(model, *loaders(digits))
    trainer.save_checkpoint(tmp_path / "ticket.ckpt")
    loaded = Model.load_from_checkpoint(tmp_path / "ticket.ckpt")
    assert same_bits(copied(loaded), copied(model))
    checkpoint = torch.load(tmp_path / "ticket.ckpt", weights_only=True)
    assert checkpoint["state_dict"].keys() == Model().state_dict().keys()
    found = Ticket.from_state_dict(tmp_path / "ticket.ckpt").masks
    assert same_bits({name: found[name] for name in ticket.masks}, ticket.masks)


def test_a_checkpoint_of_a_dense_training_goes_on_under_the_mask(digits, tmp_path):
    dense, ticket, starts = Model(optimizer="adam"), ticket_of(Model()), LateSpy()
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(dense, *loaders(digits))
    trainer.save_checkpoint(tmp_path / "dense.ckpt")
    model = Model(optimizer="adam")
    trainer = quiet_trainer(callbacks=[TicketCallback(ticket), starts])
    trainer.fit(model, *loaders(digits), ckpt_path=tmp_path / "dense.ckpt")
    name = "network.hidden.weight"
    trained = dense.network.hidden.weight
    assert torch.equal(starts.starts[0][name], torch.where(ticket.masks[name], trained, 0))
    assert_masked(model, ticket)
    state = trainer.optimizers[0].state[model.network.hidden.weight]
    assert not state["exp_avg"][~ticket.masks[name]].any()


def test_a_checkpoint_of_another_ticket_is_refused(digits, tmp_path):
    trainer = quiet_trainer(callbacks=[TicketCallback(ticket_of(Model()))], max_epochs=1)
    trainer.fit(Model(), *loaders(digits))
    trainer.save_checkpoint(tmp_path / "ticket.ckpt")
    other = quiet_trainer(callbacks=[TicketCallback(ticket_of(Model(), density=0.5))])
    with pytest.raises(ConfigurationError, match="a ticket with other masks"):
        other.fit(Model(), *loaders(digits), ckpt_path=tmp_path / "ticket.ckpt")


def test_a_second_fit_keeps_mask_and_weights(digits):
    ticket, spy, model = ticket_of(Model()), LateSpy(), Model()
    trainer = quiet_trainer(callbacks=[TicketCallback(ticket), spy], max_epochs=1)
    trainer.fit(model, *loaders(digits))
    first = copied(model)
    trainer.fit(model, *loaders(digits))
    assert same_bits(copied(model), first), "the limits are reached, so nothing is trained"
    trainer.fit_loop.max_epochs = 2
    trainer.fit(model, *loaders(digits))
    assert same_bits(spy.starts[1], first)
    assert not same_bits(copied(model), first)
    assert_masked(model, ticket)


def test_the_callback_in_a_second_trainer_starts_over(digits):
    callback, spy, model = TicketCallback(ticket_of(Model())), LateSpy(), Model()
    for _ in range(2):
        quiet_trainer(callbacks=[callback, spy], max_epochs=1).fit(model, *in_order(digits))
    assert same_bits(spy.starts[0], spy.starts[1])
    assert same_bits(spy.ends[0], spy.ends[1])


class Evaluated(Model):
    def test_step(self, batch, batch_idx):
        self.validation_step(batch, batch_idx)

    def predict_step(self, batch, batch_idx):
        return self.network(batch[0])


@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_evaluations_use_the_masked_network(digits, stage):
    model, ticket = Evaluated(), ticket_of(Model())
    before = copied(model)
    trainer = quiet_trainer(callbacks=[TicketCallback(ticket)])
    getattr(trainer, stage)(model, loaders(digits)[1])
    for name, value in copied(model).items():
        mask = ticket.masks.get(name)
        assert torch.equal(value, before[name] if mask is None else torch.where(mask, before[name], 0))


def test_evaluations_after_a_fit_change_nothing(digits):
    model, ticket = Evaluated(), ticket_of(Model())
    trainer = quiet_trainer(callbacks=[TicketCallback(ticket)])
    trainer.fit(model, *loaders(digits))
    trained = copied(model)
    for stage in (trainer.validate, trainer.test, trainer.predict):
        stage(model, loaders(digits)[1])
    assert same_bits(copied(model), trained)


@pytest.mark.parametrize("bar", [TQDMProgressBar, RichProgressBar])
def test_progress_bars_show_the_density(digits, bar, capsys):
    progress = bar(refresh_rate=1)
    trainer = quiet_trainer(
        callbacks=[TicketCallback(ticket_of(Model()), verbose=False), progress], enable_progress_bar=True
    )
    seen = []

    class Look(Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            seen.append(progress.get_metrics(trainer, pl_module)["density"])

    trainer.callbacks.append(Look())
    trainer.fit(Model(), *loaders(digits))
    density = f"{ticket_of(Model()).density:.3f}"
    assert set(seen) == {density}
    assert density in capsys.readouterr().out
    assert "density" not in progress.get_metrics(trainer, trainer.lightning_module)


def test_one_line_says_what_is_trained(digits, capsys, tmp_path):
    ticket = ticket_of(Model())
    size = f"{ticket.kept:,} of {ticket.prunable:,} prunable weights, density {ticket.density:.4f}."
    trainer = quiet_trainer(callbacks=[TicketCallback(ticket)], max_epochs=1)
    trainer.fit(Model(), *loaders(digits))
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    assert capsys.readouterr().out == f"Training a ticket from its starting values: {size}\n"
    trainer = quiet_trainer(callbacks=[TicketCallback(ticket, weights="model")], max_epochs=1)
    trainer.fit(Model(), *loaders(digits))
    assert capsys.readouterr().out == f"Training a ticket from the weights of the model: {size}\n"
    trainer = quiet_trainer(callbacks=[TicketCallback(ticket)])
    trainer.fit(Model(), *loaders(digits), ckpt_path=tmp_path / "x.ckpt")
    assert capsys.readouterr().out == f"Training a ticket from a checkpoint: {size}\n"
    quiet_trainer(callbacks=[TicketCallback(ticket, verbose=False)]).fit(Model(), *loaders(digits))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("short", [False, True])
def test_a_ticket_in_yaml(tmp_path, monkeypatch, short):
    ticket_of(Classifier(LeNet300100()), density=0.1).save(tmp_path / "ticket.safetensors")
    name = "TicketCallback" if short else "lightning_lottery.TicketCallback"
    main(short_fit({"class_path": name, "init_args": {"ticket": "ticket.safetensors"}}))
    (path,) = tmp_path.rglob("*.ckpt")
    state, ticket = torch.load(path, weights_only=True)["state_dict"], Ticket.load("ticket.safetensors")
    assert all(not state[name][~mask].any() and state[name][mask].any() for name, mask in ticket.masks.items())


@pytest.mark.parametrize("order", [1, -1])
def test_a_search_and_a_ticket_in_one_trainer_are_refused_with_the_remedy(digits, order):
    both = [TicketCallback(ticket_of(Model())), LotteryTicketCallback(rounds=1, amount=0.5)]
    trainer = quiet_trainer(callbacks=both[::order])
    with pytest.raises(ConfigurationError, match=r"cannot be combined in one Trainer.*start=ticket"):
        trainer.fit(Model(), *loaders(digits))


def test_two_tickets_in_one_trainer_are_refused(digits):
    both = [TicketCallback(ticket_of(Model())), TicketCallback(ticket_of(Model(), density=0.5))]
    trainer = quiet_trainer()
    trainer.callbacks += both
    with pytest.raises(ConfigurationError, match="2 callbacks of type TicketCallback"):
        trainer.fit(Model(), *loaders(digits))


def test_another_callback_that_prunes_is_refused(digits):
    trainer = quiet_trainer(callbacks=[TicketCallback(ticket_of(Model())), ModelPruning("l1_unstructured")])
    with pytest.raises(ConfigurationError, match="ModelPruning cannot be combined with TicketCallback"):
        trainer.fit(Model(), *loaders(digits))


def test_a_ticket_that_does_not_fit_names_layers_and_shapes_before_training(digits):
    other = Net()
    other.hidden, other.output = nn.Linear(256, 30), nn.Linear(30, 10)
    model, spy = Model(other), LateSpy()
    before = copied(model)
    trainer = quiet_trainer(callbacks=[TicketCallback(ticket_of(Model())), spy])
    with pytest.raises(TicketError) as caught:
        trainer.fit(model, *loaders(digits))
    for part in (
        "'network.hidden.weight' has shape (30, 256)",
        "(24, 256) in the ticket",
        "'network.output.weight'",
    ):
        assert part in str(caught.value)
    assert not spy.starts
    assert same_bits(copied(model), before)
    with pytest.raises(TicketError, match=r"only the ticket has: 'network.convolution.weight'"):
        quiet_trainer(callbacks=[TicketCallback(ticket_of(Model()))]).validate(
            Model(nn.Linear(784, 10)), loaders(digits)[1]
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ticket": 3}, r"ticket=3 is neither a Ticket nor a path\. Write"),
        ({"ticket": "nowhere.safetensors"}, "ticket='nowhere.safetensors': There is no ticket file"),
        ({"weights": "signs"}, "weights='signs' must be 'ticket' or 'model'"),
        ({"verbose": 1}, "verbose=1 must be True or False"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        TicketCallback(**{"ticket": ticket_of(Model()), **arguments})


def test_paths_that_are_not_tickets(tmp_path):
    (tmp_path / "empty").touch()
    with pytest.raises(TicketError, match="it is empty"):
        TicketCallback(tmp_path / "empty")
    with pytest.raises(TicketError, match="is a folder, not a ticket file"):
        TicketCallback(tmp_path)
    torch.save({}, tmp_path / "checkpoint.ckpt")
    with pytest.raises(TicketError, match=r"Ticket\.from_state_dict\(path\)"):
        TicketCallback(str(tmp_path / "checkpoint.ckpt"))


def test_a_layer_without_weights_is_named(digits):
    ticket = ticket_of(Model())
    masks = {**ticket.masks, "network.output.weight": torch.zeros(10, 24, dtype=torch.bool)}
    with pytest.warns(UserWarning, match="the fit keeps no weight of 'network.output.weight'"):
        quiet_trainer(callbacks=[TicketCallback(Ticket(masks, ticket.weights))]).fit(Model(), *loaders(digits))


def test_a_hook_that_revives_weights_is_named(digits):
    class Revive(Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            pl_module.network.hidden.weight.data.add_(1)

    trainer = quiet_trainer(callbacks=[TicketCallback(ticket_of(Model())), Revive()])
    with pytest.raises(TrainingError, match=r"pruned weights of 'network.hidden.weight' are no longer zero"):
        trainer.fit(Model(), *loaders(digits))


def test_weights_that_are_written_at_the_end_are_masked_with_a_warning(digits):
    class Revive(Callback):
        def on_train_end(self, trainer, pl_module):
            pl_module.network.hidden.weight.data.add_(1)

    model, ticket = Model(), ticket_of(Model())
    trainer = quiet_trainer(callbacks=[TicketCallback(ticket), Revive()])
    with pytest.warns(UserWarning, match="At the end of the fit, pruned weights were not zero"):
        trainer.fit(model, *loaders(digits))
    assert_masked(model, ticket)


@pytest.mark.parametrize("late", [False, True])
def test_an_interrupted_fit_leaves_no_hooks(digits, late):
    class Fail(Callback):
        def on_train_batch_end(self, trainer, *_):
            raise ZeroDivisionError

    lottery = LotteryTicketCallback(densities=[0.3], rewind="5 steps", verbose=False)
    quiet_trainer(callbacks=[lottery]).fit(Model(), *loaders(digits))
    path = lottery.run_folder / "tickets" / "round_01.safetensors"
    model = Model()
    trainer = quiet_trainer(callbacks=[TicketCallback(path if late else Ticket.load(path)), Fail()])
    kind, plain = type(trainer.fit_loop), vars(trainer.strategy).keys()
    with pytest.raises(ZeroDivisionError):
        trainer.fit(model, *loaders(digits))
    assert type(trainer.fit_loop) is kind
    assert "setup_optimizers" not in plain
    assert "setup_optimizers" not in vars(trainer.strategy)
    quiet_trainer(max_epochs=1).fit(model, *loaders(digits))
    masks = lottery.tickets[1].masks
    assert all(model.get_parameter(name)[~mask].any() for name, mask in masks.items()), "a plain fit has no mask"


def test_the_callback_can_be_copied_and_pickled(digits):
    callback = TicketCallback(ticket_of(Model()))
    quiet_trainer(callbacks=[callback]).fit(Model(), *loaders(digits))
    for other in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):
        assert other.ticket.fingerprint == callback.ticket.fingerprint
        model = Model()
        quiet_trainer(callbacks=[other], max_epochs=1).fit(model, *loaders(digits))
        assert_masked(model, callback.ticket)


def test_plain_backward_in_manual_optimization(digits):
    class Manual(Model):
        automatic_optimization = False

        def training_step(self, batch, batch_idx):
            optimizer = self.optimizers(use_pl_optimizer=False)
            loss = super().training_step(batch, batch_idx)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    model, ticket = Manual(), ticket_of(Model())
    quiet_trainer(callbacks=[TicketCallback(ticket)]).fit(model, *loaders(digits))
    assert_masked(model, ticket)


def test_optimizers_read_the_weights_of_the_ticket(digits):
    class Reads(Model):
        def configure_optimizers(self):
            seen.append(copied(self))
            return super().configure_optimizers()

    seen, ticket = [], ticket_of(Model())
    quiet_trainer(callbacks=[TicketCallback(ticket)]).fit(Reads(), *loaders(digits))
    assert len(seen) == 1
    assert same_bits(seen[0], ticket.weights)


def test_layers_of_configure_model_get_the_ticket(digits):
    class Lazy(Model):
        def __init__(self):
            super().__init__(nn.Identity())

        def configure_model(self):
            if isinstance(self.network, nn.Identity):
                self.network = Net()

    model, ticket, spy = Lazy(), ticket_of(Model()), LateSpy()
    quiet_trainer(callbacks=[TicketCallback(ticket), spy]).fit(model, *loaders(digits))
    assert same_bits(spy.starts[0], ticket.weights)
    assert_masked(model, ticket)
