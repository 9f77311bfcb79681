"""The last moment at which weights can be changed before a fit uses them."""

from collections.abc import Callable
from typing import Any

from lightning.pytorch import Callback, Trainer

from lightning_lottery._lightning.other_callbacks import other_callbacks, start_average
from lightning_lottery.attributes import replace_attribute


def before_optimizers(trainer: Trainer, owner: Callback, change: Callable[[], None]) -> Callable[[], None]:
    """Changes weights once, when the network is complete and on its device, before ``configure_optimizers``.

    Args:
        trainer: The Trainer, in ``setup`` of a fit.
        owner: Our callback.
        change: Changes the weights.

    Returns:
        A function that restores the strategy.
    """
    # Optimizers may read the weights. No hook is called between configure_model and configure_optimizers.
    strategy: Any = trainer.strategy
    set_up = strategy.setup_optimizers

    def setup_optimizers(*args: Any, **kwargs: Any) -> None:
        undo()
        change()
        # Averages have copied the weights in their setup. Those of a resumed fit come from the checkpoint.
        if trainer.ckpt_path is None:
            for callback in other_callbacks(trainer, owner):
                start_average(trainer, callback)
        set_up(*args, **kwargs)

    undo = replace_attribute(strategy, "setup_optimizers", setup_optimizers)
    return undo
