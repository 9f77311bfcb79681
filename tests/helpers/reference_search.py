"""Iterative magnitude pruning with short search rounds in plain PyTorch, without Lightning and this package."""

import copy
from dataclasses import dataclass

import torch
from torch.optim.lr_scheduler import OneCycleLR

from tests.helpers.reference import prune
from tests.helpers.reference_rewind import Experiment, Point


@dataclass
class Training:
    """What one training started from and ended with."""

    masks: dict[str, torch.Tensor]
    start: dict[str, torch.Tensor]
    end: dict[str, torch.Tensor]


@dataclass
class Search(Experiment):
    """A search. With ``is_compressed``, the schedule is one cycle over the length of each training."""

    is_compressed: bool = False

    def load_schedule(self, scheduler, start: Point) -> None:
        if not self.is_compressed:
            super().load_schedule(scheduler, start)
            return
        # The learning rates of one cycle depend on nothing but the number of the step.
        scheduler.last_epoch, scheduler._step_count = (start.scheduler[k] for k in ("last_epoch", "_step_count"))

    def search(self, amount, rounds, length, full_rounds, step=None, keep_weights=False) -> dict[str, Training]:
        """All trainings by name. ``length``: steps of a search round. ``step``: the rewind point."""
        whole = self.epochs * len(self.train_loader)
        initial = Point(weights=copy.deepcopy(self.network.state_dict()))
        masks = {name: torch.ones_like(initial.weights[name], dtype=torch.bool) for name in self.prunable}
        done: dict[str, Training] = {}

        def run(name, masks, weights, start, steps, **options):
            self.network.load_state_dict(copy.deepcopy(weights))
            begin = {n: torch.where(masks[n], w, 0) if n in masks else w for n, w in weights.items()}
            if self.is_compressed:
                self.make_scheduler = lambda optimizer: OneCycleLR(optimizer, max_lr=0.2, total_steps=steps)
            noted = self.train(masks, start, last_step=steps, **options)
            done[name] = Training(masks, copy.deepcopy(begin), copy.deepcopy(self.network.state_dict()))
            return noted

        point = run("round_00", masks, initial.weights, initial, whole, note_step=step) or initial
        started = (step or 0) + length
        starts = {}
        for number in range(1, rounds + 1):
            trained = self.network.state_dict()
            masks = prune(trained, masks, round(amount * sum(int(mask.sum()) for mask in masks.values())))
            starts[number] = masks, copy.deepcopy(trained if keep_weights else point.weights)
            if number < rounds:
                run(f"round_{number:02d}_search", *starts[number], point, started)
        for number in full_rounds:
            run(f"round_{number:02d}", *starts[number], point, whole)
        return done
