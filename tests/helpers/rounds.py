"""A fit of several rounds, checked against its own initial weights and against fits without the package."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule
from torch import Tensor

from lightning_lottery import (
    LotteryTicketCallback,
)
from tests.helpers.fits import Model, Net, Spy, copied, loaders, quiet_trainer, same_bits

PRUNED = ["network.convolution.weight", "network.hidden.weight", "network.output.weight"]


@dataclass
class Rounds:
    """A fit of several rounds, with everything needed to repeat it without the package."""

    model: LightningModule
    data: Callable[[], Any]
    others: Callable[[], list[Callback]] = list
    options: dict[str, Any] = field(default_factory=dict)
    lottery: LotteryTicketCallback = field(
        default_factory=lambda: LotteryTicketCallback(rounds=2, amount=0.5, verbose=False)
    )

    def __post_init__(self) -> None:
        self.untouched, self.initial, self.spy = copy.deepcopy(self.model), copied(self.model), Spy()
        self.trainer = quiet_trainer(callbacks=[self.lottery, *self.others(), self.spy], **self.options)

    def fit(self, compiled: Any = None) -> "Rounds":
        torch.manual_seed(3)
        self.trainer.fit(self.model if compiled is None else compiled, *self.data())
        return self

    def check(self, steps: int | list[int], pruned: list[str] = PRUNED, initial: Any = None) -> None:
        """Checks exact counts, that the smallest are removed, initial values of survivors, and zeros."""
        initial, spy, tickets = initial or self.initial, self.spy, self.lottery.tickets
        last = self.lottery.settings.sizes.last_round
        assert spy.events == ["start", "end"] * (last + 1)
        assert [record.steps for record in self.lottery.records] == spy.steps
        assert spy.steps == (steps if isinstance(steps, list) else [steps] * (last + 1))
        kept = prunable = sum(initial[name].numel() for name in pruned)
        trained = {name for name, parameter in self.model.named_parameters() if parameter.requires_grad}
        for number, (start, end) in enumerate(zip(spy.starts, spy.ends, strict=True)):
            masks = tickets[number].masks
            assert list(masks) == pruned
            assert sum(int(mask.sum()) for mask in masks.values()) == kept == self.lottery.records[number].kept
            for name, value in start.items():
                expected = torch.where(masks[name], initial[name], 0) if name in masks else initial[name]
                assert torch.equal(value.cpu(), expected), name
            for name, mask in masks.items():
                assert not end[name].cpu()[~mask].any(), name
                assert name not in trained or (start[name] != end[name]).any(), name
            if number < last:
                after = tickets[number + 1].masks
                assert not any((after[name] & ~mask).any() for name, mask in masks.items())
                sizes = {name: end[name].cpu().abs() for name in masks}
                gone = torch.cat([sizes[name][mask & ~after[name]] for name, mask in masks.items()])
                stay = torch.cat([sizes[name][after[name]] for name in masks])
                assert gone.max() <= stay.min()
                kept -= round(0.5 * kept)
        assert prunable == self.lottery.records[0].prunable
        assert same_bits({name: value.cpu() for name, value in spy.ends[-1].items()}, copied(self.model))

    def check_fresh(self) -> None:
        """Every round is bit-equal to a fit of its masked weights without the package."""
        for number, (end, order) in enumerate(zip(self.spy.ends, self.spy.order, strict=True)):
            ticket, fresh, alone = self.lottery.tickets[number], copy.deepcopy(self.untouched), Spy()
            ticket.apply(fresh)
            torch.manual_seed(3)
            others = [KeepMasked(ticket.masks), *self.others(), alone]
            quiet_trainer(callbacks=others, **self.options).fit(fresh, *self.data())
            assert alone.steps == [self.spy.steps[number]]
            assert alone.order == [order]
            assert same_bits(alone.ends[0], end), f"round {number}"


def rounds(digits, model=None, data=None, others=list, lottery=None, **options) -> Rounds:
    more = {} if lottery is None else {"lottery": lottery}
    return Rounds(model or Model(), data or (lambda: loaders(digits)), others, options, **more).fit()


def monitoring(**options) -> LotteryTicketCallback:
    return LotteryTicketCallback(
        rounds=2, amount=0.5, verbose=False, **{"monitor": "val_acc", "mode": "max", **options}
    )


def network_of(weights: dict[str, Tensor]) -> Net:
    network = Net().eval()
    network.load_state_dict({name.removeprefix("network."): value for name, value in weights.items()})
    return network


@torch.no_grad()
def accuracy(weights: dict[str, Tensor], images: Tensor, labels: Tensor) -> float:
    return float((network_of(weights)(images).argmax(1) == labels).float().mean())


def sums(images: Tensor, size: int) -> list[int]:
    """What the Spy records for batches in order."""
    return [int(batch.double().sum() * 1e6) for batch in images.split(size)]


def same_training(first: Rounds, second: Rounds) -> bool:
    return len(first.spy.ends) == len(second.spy.ends) and all(map(same_bits, first.spy.ends, second.spy.ends))


class KeepMasked(Callback):
    """Masks without the package, so that the package is not compared with itself."""

    def __init__(self, masks: dict[str, Tensor]) -> None:
        self.masks = masks

    def on_after_backward(self, trainer, pl_module):
        for name, parameter in pl_module.named_parameters():
            if name in self.masks and parameter.grad is not None:
                parameter.grad[~self.masks[name]] = 0

    def on_train_batch_end(self, trainer, pl_module, *_):
        with torch.no_grad():
            for name, parameter in pl_module.named_parameters():
                if name in self.masks:
                    assert not parameter[~self.masks[name]].any(), "a pruned weight has moved"


def ranked(scores, before, number):
    """The definition: removes the first of all survivors in a stable order."""
    together = torch.cat([score.flatten() for score in scores.values()])
    alive = torch.cat([mask.flatten() for mask in before.values()]).clone()
    order = together.argsort(stable=True)
    alive[order[alive[order]][:number]] = False
    parts = alive.split([score.numel() for score in scores.values()])
    return {name: part.view(before[name].shape) for name, part in zip(scores, parts, strict=True)}
