"""What users write, checked by mypy; never run."""

from dataclasses import dataclass, replace

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from lightning_lottery import Control, LotteryTicketCallback, Reinitialize, RoundRecord, ShuffleMask, Ticket
from lightning_lottery.masks import prune_smallest


def fit(model: LightningModule) -> Ticket:
    lottery = LotteryTicketCallback(
        rounds=10,
        amount=0.2,
        monitor="val_acc",
        mode="max",
        controls=[Reinitialize(), ShuffleMask(), Identity()],
        control_rounds=[3, 10],
    )
    Trainer(callbacks=[lottery]).fit(model)
    record: RoundRecord = lottery.records[3]
    control: RoundRecord = lottery.records["shuffle_mask"][3]
    accuracies: list[float] = [r.metrics["val_acc"] for r in lottery.records]
    print(record.density, control.best_value, accuracies)
    masks: dict[str, Tensor] = lottery.tickets["shuffle_mask"][3].masks
    lottery.tickets[3].apply(model)
    lottery.tickets[3].save("ticket.safetensors")
    smaller: dict[str, Tensor] = prune_smallest(masks, None, 3, magnitude=True)
    listed: list[Tensor] = prune_smallest([*smaller.values()], None, 3)
    print(listed)
    return lottery.smallest_matching(tolerance=0.005)


LotteryTicketCallback(rounds="ten")  # type: ignore[arg-type]
LotteryTicketCallback(densities=[0.5, 0.1], mode="maximum")  # type: ignore[arg-type]


@dataclass(frozen=True)
class Identity(Control):
    """A control of the user's own."""

    def ticket(self, ticket: Ticket, dense: Ticket, module: nn.Module, seed: int) -> Ticket:
        return replace(ticket, weights=dense.weights)
