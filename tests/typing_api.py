"""What users write, checked by mypy; never run."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from lightning_lottery import (
    SNIP,
    Context,
    Control,
    CoupledChannels,
    Criterion,
    EarlyBird,
    Layer,
    Layerwise,
    LotteryTicketCallback,
    NofM,
    Point,
    Pool,
    Reinitialize,
    Rewind,
    RoundRecord,
    Scope,
    ShuffleMask,
    Sizes,
    Stop,
    Ticket,
    TicketCallback,
    Tolerance,
    ToStep,
    Transfer,
)
from lightning_lottery.export import ExportReport, best, compact, dense, onnx, sparse
from lightning_lottery.masks import prune_smallest


def smaller(model: LightningModule, images: Tensor) -> nn.Module:
    lottery = LotteryTicketCallback(densities=[0.5], pattern=CoupledChannels(norm=1, normalise=False))
    lottery.preview(model, example=(images,))
    small = compact(model, "ticket.safetensors", {"images": images})
    report = ExportReport.measure(model, lottery.tickets[1], small, images, batch_sizes=[1, 32])
    print(report, report.speedup[1].median > 2, report.exported.latency[32].median, lottery.tickets[1].following)
    return small


def faster(model: LightningModule, ticket: Ticket, images: Tensor) -> tuple[nn.Module, ExportReport]:
    file = onnx(compact(model, ticket, images), None, images, "small.onnx", dynamic_batch=False)
    print(file.path, dense(model, ticket), sparse(model, "ticket.safetensors", (images,)))
    network, report = best(model, ticket, images, batch_sizes=(1, 60), turns=5, seconds=0.05)
    print(report.kept, report.forms["sparse"].bytes, report.left_out, report.to_json()["kept"])
    return network, report


def fit(model: LightningModule) -> Ticket:
    lottery = LotteryTicketCallback(
        rounds=10,
        amount=0.2,
        monitor="val_acc",
        mode="max",
        rewind=ToStep("1%", optimizer="fresh"),
        controls=[Reinitialize(), ShuffleMask(), Identity()],
        control_rounds=[3, 10],
    )
    trainer = Trainer(callbacks=[lottery])
    trainer.fit(model, ckpt_path=lottery.resume(trainer))
    record: RoundRecord = lottery.records[3]
    control: RoundRecord = lottery.records["shuffle_mask"][3]
    accuracies: list[float] = [r.metrics["val_acc"] for r in lottery.records]
    print(record.density, control.best_value, accuracies)
    masks: dict[str, Tensor] = lottery.tickets["shuffle_mask"][3].masks
    lottery.tickets[3].apply(model)
    lottery.tickets[3].save("ticket.safetensors")
    Trainer(callbacks=[TicketCallback(lottery.tickets[3]), TicketCallback("x.safetensors", weights="model")])
    LotteryTicketCallback(rounds=1, amount=0.2, start="ticket.safetensors")
    made: Transfer = Ticket.from_state_dict("x.ckpt").transfer(model, rename={"*": "model.*"}, weights="signs")
    Ticket.from_masks(made.ticket.masks, model).apply(model)
    smaller: dict[str, Tensor] = prune_smallest(masks, None, 3, magnitude=True)
    listed: list[Tensor] = prune_smallest([*smaller.values()], None, 3)
    print(listed)
    return lottery.smallest_matching(tolerance=0.005)


TicketCallback("x.safetensors", weights="signs")  # type: ignore[arg-type]
LotteryTicketCallback(rounds="ten")  # type: ignore[arg-type]
LotteryTicketCallback(densities=[0.5, 0.1], mode="maximum")  # type: ignore[arg-type]


@dataclass(frozen=True)
class LateSchedule(Rewind):
    """A user's rewinding rule."""

    @property
    def weights(self) -> Point:
        return Point()

    @property
    def schedule(self) -> Point:
        return Point(500, "steps")


LotteryTicketCallback(rounds=1, amount=0.2, rewind=LateSchedule())


@dataclass(frozen=True)
class Identity(Control):
    """A user's control."""

    def ticket(self, ticket: Ticket, dense: Ticket, module: nn.Module, seed: int) -> Ticket:
        return replace(ticket, weights=dense.weights)


def methods(weight: Tensor) -> list[LotteryTicketCallback]:
    return [
        LotteryTicketCallback(densities=[0.1], criterion=SNIP(batches=5), prune_at_init=True),
        LotteryTicketCallback(densities=[0.5], criterion=torch.square, pattern=NofM(2, 4)),
        LotteryTicketCallback(
            rounds=5,
            amount=0.2,
            monitor="val_acc",
            mode="max",
            criterion=Inverse(),
            scope=Layerwise(layer_amounts={"last": 0.1}, min_density=0.01),
            stop=[Tolerance(drop=0.01), EarlyBird(), AfterThree()],
        ),
        LotteryTicketCallback(rounds=5, amount=0.2, scope=OnePool()),
    ]


@dataclass(frozen=True)
class Inverse(Criterion):
    def score(self, context: Context) -> dict[str, Tensor]:
        return {name: 1 / weight for name, weight in context.weights.items()}


@dataclass(frozen=True, kw_only=True)
class OnePool(Scope):
    def pools(self, layers: Sequence[Layer], sizes: Sizes) -> list[Pool]:
        return [Pool.of(layers, sizes), Pool((layers[0].name,), tuple(sizes.counts(layers[0].units)))]


@dataclass(frozen=True)
class AfterThree(Stop):
    def after_round(self, records: Sequence[RoundRecord], mode: str) -> bool:
        return len(records) > 3
