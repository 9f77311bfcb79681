"""How long search rounds are in a fit."""

import math

from lightning_lottery._lightning import RoundsFit
from lightning_lottery.errors import ConfigurationError
from lightning_lottery.rules import Point, Settings
from lightning_lottery.storage import SearchLength


def search_length(settings: Settings, fit: RoundsFit) -> SearchLength | None:
    """Resolves the argument ``search``. The Trainer must have loaded its data.

    Args:
        settings: The arguments.
        fit: The Trainer, with its own limits.

    Returns:
        The length of search rounds; ``None`` if there are none, or if ``fast_dev_run`` makes all rounds one step
        long.

    Raises:
        ConfigurationError: The length is unknown, below one step, or not shorter than the other rounds.
    """
    length = settings.search
    if length is None or fit.trainer.fast_dev_run:  # type: ignore[attr-defined]
        return None
    steps, epochs = fit.progress.steps_per_round(), fit.progress.epochs_per_round()
    per_epoch, start = fit.progress.steps_per_epoch(), settings.rewind.schedule
    if length.unit == "epochs" and math.isinf(per_epoch):
        if start.amount and start.unit != "epochs":
            raise ConfigurationError(
                f"search='{length}' after {settings.rewind!r} needs the number of steps in an epoch, which is "
                "unknown. Write a number of steps, for example search='500 steps'."
            )
        _check_shorter(length, length.amount, epochs - start.amount, "epochs", settings)
        _check_windows(length, length.amount, settings)
        return SearchLength(int(length.amount), in_epochs=True)
    amount = _in_steps(length, steps, per_epoch)
    _check_shorter(length, amount, steps - _steps_before(start, steps, per_epoch), "steps", settings)
    if math.isinf(per_epoch):
        return SearchLength(amount)
    _check_windows(length, amount / per_epoch, settings)
    return SearchLength(amount, int(per_epoch))


def _steps_before(start: Point, steps: float, per_epoch: float) -> float:
    """The steps before the point where rounds start; 0 if they are unknown."""
    if start.unit != "epochs":
        return start.resolve(steps).amount
    return 0 if math.isinf(per_epoch) else start.amount * per_epoch


def _in_steps(length: Point, steps: float, per_epoch: float) -> int:
    if length.unit != "%":
        return int(length.amount if length.unit == "steps" else length.amount * per_epoch)
    if math.isinf(steps):
        raise ConfigurationError(
            f"search='{length}' needs the number of steps in a round, which is unknown: the data have no length, "
            "the LightningModule uses manual optimization, or accumulate_grad_batches changes. Write a number of "
            "steps or epochs, for example search='500 steps'."
        )
    amount = round(length.amount / 100 * steps)
    if amount < 1:
        raise ConfigurationError(
            f"search='{length}' of a round of {steps:g} steps is below one step. Write a greater part, or a "
            "number of steps, for example search='1 steps'."
        )
    return amount


def _check_shorter(length: Point, amount: float, longest: float, unit: str, settings: Settings) -> None:
    if amount >= longest:
        since = f"the rounds after {settings.rewind!r}" if settings.rewind.schedule.amount else "a round"
        instead = f"search='{max(1, int(longest / 5))} {unit}'"
        raise ConfigurationError(
            f"search='{length}' is {amount:g} {unit}, which is not shorter than {since}: {longest:g} {unit}. "
            + (f"Write for example {instead}, or leave" if longest > 1 else "Leave")
            + " out search to train all rounds fully."
        )


def _check_windows(length: Point, epochs: float, settings: Settings) -> None:
    """Checks that a stop rule can end a search round."""
    window = max((rule.window for rule in settings.stop), default=0)
    if window > math.ceil(epochs):
        raise ConfigurationError(
            f"stop={list(settings.stop)} compares the masks of {window} epochs, but search='{length}' ends rounds "
            f"within {math.ceil(epochs)}. Use a smaller window or a longer search, or leave out one of them."
        )
