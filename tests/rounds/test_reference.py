"""The callback is bit-equal to plain PyTorch."""

import copy

import pytest
import torch
from lightning.pytorch import seed_everything

from lightning_lottery import LotteryTicketCallback
from tests.helpers.fits import Model, Net, Spy, loaders, make_optimizer, quiet_trainer, same_bits
from tests.helpers.reference import iterative_magnitude_pruning

PRUNABLE = ["convolution.weight", "hidden.weight", "output.weight"]


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop"])
@pytest.mark.parametrize("scheduler", ["none", "step"])
def test_masks_and_weights_are_bit_equal_to_plain_pytorch_in_every_round(digits, optimizer, scheduler):
    network = Net()
    train, val = loaders(digits, train=300)
    expected = iterative_magnitude_pruning(
        copy.deepcopy(network),
        PRUNABLE,
        train,
        val,
        lambda module: make_optimizer(optimizer, module.parameters()),
        (lambda o: torch.optim.lr_scheduler.StepLR(o, 5, 0.7)) if scheduler == "step" else None,
        amount=0.3,
        rounds=4,
        epochs=3,
        seed=11,
    )

    spy = Spy()
    lottery = LotteryTicketCallback(rounds=4, amount=0.3, monitor="val_acc", mode="max", verbose=False)
    seed_everything(11, verbose=False)
    trainer = quiet_trainer(max_epochs=3, callbacks=[lottery, spy])
    trainer.fit(Model(network, optimizer, scheduler), train, val)

    assert len(lottery.records) == len(lottery.tickets) == len(expected) == 5
    for number, reference in enumerate(expected):
        masks = {f"network.{name}": mask for name, mask in reference.masks.items()}
        assert same_bits(lottery.tickets[number].masks, masks)
        assert same_bits(spy.starts[number], {f"network.{k}": v for k, v in reference.start.items()})
        assert same_bits(spy.ends[number], {f"network.{k}": v for k, v in reference.end.items()})
        record = lottery.records[number]
        assert record.metrics["val_acc"] == pytest.approx(reference.val_accuracy, abs=1e-6)
        assert record.kept == sum(int(mask.sum()) for mask in reference.masks.values())
        assert record.round == number
        assert record.branch == "ticket"
