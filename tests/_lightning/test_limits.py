"""Limits of search rounds, against a loop that counts steps and epochs."""

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from lightning_lottery._lightning.limits import Limits
from lightning_lottery.storage import SearchLength


def trainer_of(epochs, steps):
    """What the limits read and write of a Trainer."""
    loop = SimpleNamespace(max_epochs=epochs, min_epochs=None, min_steps=None, max_steps=steps)
    loop.epoch_loop = SimpleNamespace(max_steps=steps, min_steps=None)
    return SimpleNamespace(fit_loop=loop, accumulate_grad_batches=1, global_step=0)


def last_step(trainer, start, per_epoch):
    """The step at which a training ends that Lightning checks as it does: steps always, epochs at their ends."""
    loop, step = trainer.fit_loop, start
    while True:
        step += 1
        by_epochs = (
            loop.max_epochs not in (None, -1) and step % per_epoch == 0 and step // per_epoch >= loop.max_epochs
        )
        if by_epochs or (loop.epoch_loop.max_steps != -1 and step >= loop.epoch_loop.max_steps):
            return step


@given(
    per_epoch=st.integers(1, 9),
    start=st.integers(0, 40),
    amount=st.integers(1, 40),
    has_epochs=st.booleans(),
    has_steps=st.booleans(),
    is_known=st.booleans(),
)
def test_a_search_round_has_exactly_its_length(per_epoch, start, amount, has_epochs, has_steps, is_known):
    end = start + amount
    epochs = end // per_epoch + 5 if has_epochs or not has_steps else -1
    steps = end + 7 if has_steps else -1
    trainer = trainer_of(epochs, steps)
    limits = Limits(trainer)
    limits.limit_to(SearchLength(amount, per_epoch if is_known else None), start, start // per_epoch)
    assert last_step(trainer, start, per_epoch) == end
    if is_known and epochs != -1:
        assert trainer.fit_loop.max_epochs == -(-end // per_epoch), "schedules over max_epochs follow it"
    if has_steps:
        assert trainer.fit_loop.epoch_loop.max_steps == end, "schedules over max_steps follow it"
    limits.restore()
    assert (trainer.fit_loop.max_epochs, trainer.fit_loop.epoch_loop.max_steps) == (epochs, steps)


@given(epochs=st.integers(0, 5), amount=st.integers(1, 5))
def test_a_length_in_epochs_counts_from_the_point(epochs, amount):
    trainer = trainer_of(20, -1)
    Limits(trainer).limit_to(SearchLength(amount, in_epochs=True), 0, epochs)
    assert trainer.fit_loop.max_epochs == epochs + amount
    assert trainer.fit_loop.epoch_loop.max_steps == -1
