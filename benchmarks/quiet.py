"""Shared by the benchmarks: a Trainer that only trains and validates."""

from typing import Any

from lightning.pytorch import Callback, Trainer


def quiet_trainer(epochs: int, *callbacks: Callback, **options: Any) -> Trainer:
    """Makes a Trainer for one device, without logger, checkpoints, progress bar, summary and sanity check.

    Args:
        epochs: Its ``max_epochs``.
        callbacks: Its callbacks.
        options: Further arguments of the Trainer.
    """
    return Trainer(
        max_epochs=epochs,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        devices=1,
        **options,
    )
