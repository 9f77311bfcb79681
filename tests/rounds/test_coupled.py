"""Searches that remove coupled channels."""

import copy
import sys

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, seed_everything
from torch import nn
from torch.utils.data import DataLoader

from lightning_lottery import (
    ERK,
    SNIP,
    ConfigurationError,
    CoupledChannels,
    EarlyBird,
    LearningRate,
    LotteryError,
    LotteryTicketCallback,
    Random,
    Reinitialize,
    ShuffleMask,
    Ticket,
    TicketCallback,
    ToStep,
    Unstructured,
)
from lightning_lottery.storage import CHANNELS, ChannelsState, RunFolder
from tests.helpers.channels import GROUPS, KERNELS, Residual
from tests.helpers.contracts import CRITERIA, REWINDS
from tests.helpers.fits import LateSpy, Model, Spy, copied, loaders, quiet_trainer, same_bits
from tests.helpers.rounds import KeepMasked

MASKED = {f"network.{name}" for _, names in GROUPS.values() for name in names} | {"network.output.weight"}
PRUNED = {f"network.{name}" for name in KERNELS}


def search(digits, *others, network=None, epochs=2, **options):
    seed_everything(3, verbose=False)
    lottery = LotteryTicketCallback(
        **{"densities": [0.7, 0.4], "pattern": CoupledChannels(), "verbose": False, **options}
    )
    model = Model(network or Residual(), scheduler="step")
    quiet_trainer(callbacks=[lottery, *others], max_epochs=epochs).fit(model, *loaders(digits))
    return lottery, model


def kept_units(masks):
    """The surviving units by hand: (group, unit). Checks that all parameters of a unit agree."""
    kept = set()
    for group, (units, names) in GROUPS.items():
        for unit in range(units):
            alive = {bool(value) for name in names for value in masks[f"network.{name}"][unit].flatten()}
            assert len(alive) == 1, (group, unit)
            kept |= {(group, unit)} if alive == {True} else set()
    return kept


def smallest(weights, kept, number):
    """The definition: removes the units with the smallest norms, divided by their mean within the group."""
    scores = []
    for group in GROUPS:
        kernels = [name for name in GROUPS[group][1] if name in KERNELS]
        norms = {
            (name, unit): sum(float(weights[f"network.{k}"][unit].double().square().sum()) for k in kernels) ** 0.5
            for name, unit in kept
            if name == group
        }
        scores += [(norm * len(norms) / sum(norms.values()), *key) for key, norm in norms.items()]
    return kept - {(group, unit) for _, group, unit in sorted(scores)[:number]}


def test_a_search_removes_the_smallest_units_and_rewinds_exactly(digits):
    network, spy = Residual(), Spy()
    initial = {f"network.{name}": tensor for name, tensor in copied(network).items()}
    lottery, _ = search(digits, spy, network=copy.deepcopy(network))
    kept = {(group, unit) for group, (units, _) in GROUPS.items() for unit in range(units)}
    for number, ticket in enumerate(lottery.tickets.values()):
        assert ticket.masks.keys() == MASKED
        assert set(ticket.following) == MASKED - PRUNED
        assert kept_units(ticket.masks) == kept
        record = lottery.records[number]
        weights = sum(int(ticket.masks[name].sum()) for name in PRUNED)
        assert (record.kept, record.prunable) == (weights, sum(ticket.masks[name].numel() for name in PRUNED))
        assert record.density == ticket.density == weights / record.prunable
        assert record.kept_by_layer.keys() == ticket.layer_densities().keys() == PRUNED
        start, end = spy.starts[number], spy.ends[number]
        for name, value in start.items():
            expected = torch.where(ticket.masks[name], initial[name], 0) if name in MASKED else initial[name]
            assert torch.equal(value, expected), name
        for name, mask in ticket.masks.items():
            assert not end[name][~mask].any()
            assert (end[name] != start[name])[mask].any()
        alone, fresh = Spy(), Model(copy.deepcopy(network), scheduler="step")
        ticket.apply(fresh)
        seed_everything(3, verbose=False)
        quiet_trainer(callbacks=[KeepMasked(ticket.masks), alone]).fit(fresh, *loaders(digits))
        assert same_bits(alone.ends[0], end)
        if number < 2:
            kept = smallest(end, kept, len(kept) - round([0.7, 0.4][number] * 31))


@pytest.mark.parametrize("rewind", ["init", "6 steps", LearningRate("5 steps")], ids=str)
@pytest.mark.parametrize("training", [False, True])
def test_the_output_of_a_removed_channel_is_exactly_zero(digits, rewind, training):
    """Also if the statistics of a normalisation come from before the channel was removed."""
    lottery, model = search(digits, rewind=rewind)
    masks, seen = lottery.tickets[2].masks, {}
    network = model.network.train(training)
    for name in ("stem_norm", "inner_norm", "back_norm", "depthwise_norm", "pointwise", "slopes"):
        network.get_submodule(name).register_forward_hook(lambda _, __, y, name=name: seen.update({name: y}))
    network(digits[0][:50])
    assert rewind == "init" or network.stem_norm.running_mean[~masks["network.stem_norm.bias"]].any()
    for name, output in seen.items():
        mask = masks[f"network.{name}.{'weight' if name == 'slopes' else 'bias'}"]
        assert not output[:, ~mask].any(), name
        assert output[:, mask].any()


@pytest.mark.slow
@pytest.mark.parametrize("criterion", CRITERIA, ids=repr)
def test_every_criterion(digits, criterion):
    lottery, _ = search(digits, densities=[0.6], criterion=criterion)
    assert len(kept_units(lottery.tickets[1].masks)) == round(0.6 * 31)


@pytest.mark.slow
@pytest.mark.parametrize("rewind", REWINDS, ids=repr)
def test_every_rewinding_rule(digits, rewind):
    spy = LateSpy()
    lottery, _ = search(digits, spy, rewind=rewind, epochs=3)
    for number in (1, 2):
        ticket = lottery.tickets[number]
        kept_units(ticket.masks)
        assert all(not spy.ends[number][name][~mask].any() for name, mask in ticket.masks.items())


def test_pruning_before_training(digits):
    lottery, _ = search(digits, criterion=SNIP(), prune_at_init=True)
    assert [record.round for record in lottery.records] == [1, 2]
    assert len(kept_units(lottery.tickets[2].masks)) == round(0.4 * 31)


def test_controls_keep_the_masks(digits):
    lottery, _ = search(digits, controls=[Reinitialize()], control_rounds=[2])
    control, ticket = lottery.tickets["reinitialize"][2], lottery.tickets[2]
    assert control.following == ticket.following
    assert all(torch.equal(control.masks[name], mask) for name, mask in ticket.masks.items())
    for name in PRUNED:
        assert not control.weights[name][~ticket.masks[name]].any()
    with pytest.raises(ConfigurationError, match=r"would break up the units of CoupledChannels\("):
        LotteryTicketCallback(densities=[0.5], pattern=CoupledChannels(), controls=[ShuffleMask()])


def test_stop_rules_compare_only_prunable_weights(digits):
    """The distance of the masks of two epochs, with the masks of biases and normalisations left out."""

    class Watch(EarlyBird):
        def after_epoch(self, masks, now):
            names.append({*now, *masks[-1]})
            return False

    names = []
    search(digits, stop=[Watch(window=2, tolerance=0.1)])
    assert names
    assert all(seen == PRUNED for seen in names)


def test_a_ticket_is_saved_trained_carried_over_and_searched_on(digits, tmp_path):
    spy = Spy()
    lottery, _ = search(digits, spy, dirpath=tmp_path / "run")
    path = tmp_path / "run" / "tickets" / "round_01.safetensors"
    ticket = Ticket.load(path)
    assert ticket.following == list(lottery.tickets[1].following)
    assert ticket.density == lottery.records[1].density
    seed_everything(3, verbose=False)
    alone, model = Spy(), Model(Residual(), scheduler="step")
    quiet_trainer(callbacks=[TicketCallback(path, verbose=False), alone]).fit(model, *loaders(digits))
    assert same_bits(alone.ends[0], spy.ends[1])
    made = ticket.transfer(Residual(), rename={"network.*": "*"})
    assert {f"network.{name}" for name in made.ticket.following} == set(ticket.following)
    assert made.ticket.density == ticket.density
    assert f"carried {len(PRUNED)} masks" in str(made)
    further = Spy()
    on, _ = search(digits, further, densities=[0.4], start=path, dirpath=tmp_path / "further")
    assert same_bits(further.ends[1], spy.ends[2])
    assert on.tickets[0].fingerprint == ticket.fingerprint
    assert on.records[1].masks_hash == lottery.records[2].masks_hash


def test_single_weights_can_be_removed_from_a_ticket_of_channels(digits):
    lottery, _ = search(digits, densities=[0.5])
    structured, spy = lottery.tickets[1], Spy()
    on, _ = search(digits, spy, densities=[0.1], start=structured, pattern=Unstructured())
    assert on.records[0].density == structured.density
    assert on.records[1].kept == round(0.1 * on.records[1].prunable)
    assert on.tickets[1].following == structured.following
    for number in (0, 1):  # biases of removed channels are not trained again
        for name in structured.following:
            assert torch.equal(on.tickets[number].masks[name], structured.masks[name])
            assert not spy.ends[number][name][~structured.masks[name]].any()


def test_excluded_parameters_are_never_changed(digits):
    lottery, _ = search(digits, densities=[0.8], exclude=["*.inner.bias"])
    assert "network.inner.bias" not in lottery.tickets[1].masks
    assert lottery.tickets[1].masks["network.inner.weight"].all()


def test_what_is_kept_whole_is_said_once(digits, capsys):
    line = "Kept whole: network.output.weight (its channels are outputs of the network).\n"
    search(digits, verbose=True, epochs=1)
    assert capsys.readouterr().out.count(line) == 1
    search(digits, epochs=1)
    assert "whole" not in capsys.readouterr().out


class Dictionaries(Model):
    """Batches are dictionaries, in which the inputs are not known."""

    def training_step(self, batch, batch_idx):
        return super().training_step((batch["image"], batch["label"]), batch_idx)

    validation_step = LightningModule.validation_step


def batches(digits):
    return DataLoader([{"image": image, "label": label} for image, label in zip(*digits, strict=True)][:100], 20)


def fit_dictionaries(digits, folder, **attributes):
    model = Dictionaries(Residual())
    vars(model).update(attributes)
    lottery = LotteryTicketCallback(
        densities=[0.5], pattern=CoupledChannels(), dirpath=folder, verbose=False, criterion=Random()
    )
    trainer = quiet_trainer(callbacks=[lottery])
    try:
        trainer.fit(model, batches(digits))
    finally:
        vars(model)["steps"] = trainer.global_step
    return lottery


def test_an_example_in_the_module_is_used(digits, tmp_path):
    lottery = fit_dictionaries(digits, tmp_path / "run", _example_input_array=torch.rand(1, 1, 28, 28))
    assert len(kept_units(lottery.tickets[1].masks)) == 16


def test_an_example_of_zeros_hides_no_difference(digits, tmp_path):
    class Centred(Residual):
        def forward(self, images):
            images = images.view(-1, 1, 28, 28)
            return self.output(self.slopes(self.hidden(self.features(images)) + images.mean((1, 2, 3))[:, None]))

        def features(self, images):
            features = nn.functional.max_pool2d(self.pointwise(self.depthwise(self.stem(images))).relu(), 2)
            return features.flatten(1)

    lottery, _ = search(digits, network=Centred(), densities=[0.7], epochs=1)
    removed = {name for name, mask in lottery.tickets[1].masks.items() if not mask.all()}
    assert "network.pointwise.weight" in removed
    model = Model(Centred())
    model.example_input_array = torch.zeros(1, 1, 28, 28)
    assert "network.hidden.weight" in str(lottery.preview(model).kept_whole)


def test_damaged_channels_are_an_error(digits, tmp_path):
    lottery, _ = search(digits, densities=[0.7], epochs=1, dirpath=tmp_path / "run")
    path = tmp_path / "run" / "channels.pt"
    whole = path.read_bytes()
    table = torch.arange(6).numpy().tobytes()  # the units of a layer
    assert table in whole
    path.write_bytes(whole.replace(table, torch.arange(6).add(7000).numpy().tobytes(), 1))
    with pytest.raises(LotteryError, match=r"in channels.pt are damaged, so this run cannot be resumed"):
        RunFolder(lottery.run_folder).read_state(CHANNELS, ChannelsState)
    path.write_bytes(whole[:200] + b"damaged" + whole[207:])
    with pytest.raises(LotteryError, match=r"channels.pt cannot be read, so this run cannot be resumed"):
        RunFolder(lottery.run_folder).read_state(CHANNELS, ChannelsState)


def test_unknown_inputs_are_an_error_before_training(digits, tmp_path):
    with pytest.raises(ConfigurationError, match=r"in a batch of type dict. Set self.example_input_array"):
        fit_dictionaries(digits, tmp_path / "run")
    assert not list(tmp_path.rglob("*.safetensors")), "nothing was trained or written"


def test_a_missing_package_is_an_error_before_training(digits, monkeypatch):
    class Never(Callback):
        def on_train_start(self, *_):
            raise AssertionError

    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(ConfigurationError, match=r"lightning-lottery\[structured\]"):
        search(digits, Never())


def test_a_network_that_cannot_be_called_is_an_error_before_training(digits):
    class Uncalled(Model):
        """A LightningModule without forward."""

        forward = LightningModule.forward

    lottery = LotteryTicketCallback(densities=[0.5], pattern=CoupledChannels(), verbose=False)
    with pytest.raises(ConfigurationError, match=r'Calling Uncalled on an example .* missing the .* "forward"'):
        quiet_trainer(callbacks=[lottery]).fit(Uncalled(Residual()), *loaders(digits))


def test_scopes_and_late_rewinding_together(digits):
    lottery, _ = search(digits, scope=ERK(), rewind=ToStep(5), monitor="val_acc", mode="max")
    assert len(kept_units(lottery.tickets[2].masks)) == round(0.4 * 31)
