"""TicketCallback: one ticket, trained with its mask held."""

import copy
import pickle

import pytest
import torch
from lightning.pytorch import Callback, callbacks, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar, TQDMProgressBar
from torch import nn

from lightning_lottery import (
    ConfigurationError,
    LotteryTicketCallback,
    Ticket,
    TicketCallback,
)
from lightning_lottery.cli.main import main
from lightning_lottery.vision import Classifier, LeNet300100
from tests.helpers.fits import (
    LateSpy,
    Model,
    Net,
    Uncounted,
    copied,
    in_order,
    loaders,
    quiet_trainer,
    same_bits,
)
from tests.helpers.scripts import short_fit
from tests.helpers.tickets import assert_masked, ticket_of


def test_a_second_fit_keeps_weights_of_steps_that_lightning_does_not_count(digits):
    model = Uncounted()
    trainer = quiet_trainer(callbacks=[TicketCallback(ticket_of(Model()))])
    trainer.fit(model, *loaders(digits))
    trained = copied(model)
    trainer.fit(model, *loaders(digits))
    assert same_bits(copied(model), trained)


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


def test_a_checkpoint_of_a_dense_training_continues_under_the_mask(digits, tmp_path):
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
    result = getattr(trainer, stage)(model, loaders(digits)[1])
    masked = Evaluated()
    masked.load_state_dict(
        {n: torch.where(ticket.masks[n], t, 0) if n in ticket.masks else t for n, t in before.items()}
    )
    outputs = masked.eval().network(digits[0][-200:])
    if stage == "predict":
        torch.testing.assert_close(torch.cat(result), outputs)
    else:
        loss = nn.functional.cross_entropy(outputs, digits[1][-200:])
        assert result[0]["val_loss"] == pytest.approx(float(loss), rel=1e-5)
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
