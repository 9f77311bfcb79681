"""The order of data in late rounds and resumed runs, with loaders that are created again."""

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

from lightning_lottery import LotteryTicketCallback
from tests.helpers.fits import Model, copied, loaders, quiet_trainer, same_bits


class Order(Callback):
    """Records the batches of every epoch of every round."""

    def __init__(self):
        self.rounds = []

    def on_train_start(self, trainer, pl_module):
        self.rounds.append({})

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.rounds[-1].setdefault(trainer.current_epoch, []).append(int(batch[0].double().sum() * 1e6))


class Curriculum(Model):
    """Uses more of the data in later epochs."""

    def __init__(self, digits):
        super().__init__()
        self.digits = digits

    def train_dataloader(self):
        size = 64 * (1 + self.trainer.current_epoch)
        return DataLoader(TensorDataset(*(part[:size] for part in self.digits)), batch_size=32, shuffle=True)

    def val_dataloader(self):
        return loaders(self.digits)[1]


def fitted(digits, curriculum, every=1, rewind="1 epochs", **options):
    torch.manual_seed(3)
    model = Curriculum(digits) if curriculum else Model()
    order = Order()
    lottery = LotteryTicketCallback(rounds=2, amount=0.5, rewind=rewind, verbose=False)
    options = {"reload_dataloaders_every_n_epochs": every, "max_epochs": 4, **options}
    trainer = quiet_trainer(callbacks=[lottery, order], **options)
    trainer.fit(model, *(() if curriculum else loaders(digits)))
    return order.rounds


@pytest.mark.parametrize("curriculum", [False, True])
@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("rewind", ["1 epochs", "2 epochs", "3 steps"])
def test_late_rounds_see_the_batches_of_round_0_with_reloaded_loaders(digits, curriculum, every, rewind):
    first, *others = fitted(digits, curriculum, every, rewind)
    assert len(others) == 2
    if curriculum and every == 1:
        assert [len(batches) for batches in first.values()] == [2, 4, 6, 8]
    for other in others:
        begun = min(other)
        assert other[begun] == first[begun][len(first[begun]) - len(other[begun]) :]
        assert {e: b for e, b in other.items() if e > begun} == {e: b for e, b in first.items() if e > begun}


class StopAt(Callback):
    """Fails at the beginning of an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch:
            raise ZeroDivisionError


@pytest.mark.parametrize("curriculum", [False, True])
@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("steps", [None, 3], ids=["between epochs", "in an epoch"])
def test_a_resumed_run_sees_the_same_data(digits, tmp_path, curriculum, every, steps):
    def fit(name, *others, resume=False):
        torch.manual_seed(3)
        model = Curriculum(digits) if curriculum else Model()
        order = Order()
        lottery = LotteryTicketCallback(rounds=1, amount=0.5, dirpath=tmp_path / name, verbose=False)
        saving = ModelCheckpoint(tmp_path / name / "saved", save_top_k=-1, every_n_train_steps=steps)
        trainer = quiet_trainer(
            callbacks=[lottery, order, saving, *others],
            enable_checkpointing=True,
            reload_dataloaders_every_n_epochs=every,
            max_epochs=4,
        )
        data = () if curriculum else loaders(digits)
        trainer.fit(model, *data, ckpt_path=lottery.resume(trainer) if resume else None)
        return copied(model), order.rounds

    expected, whole = fit("whole")
    with pytest.raises(ZeroDivisionError):
        fit("resumed", StopAt(3))
    ended, resumed = fit("resumed", resume=True)
    assert resumed[0][3] == whole[0][3]
    assert resumed[1] == whole[1]
    assert same_bits(ended, expected)
