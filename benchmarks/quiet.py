"""What benchmarks share: a Trainer that does nothing but train and validate."""

from lightning.pytorch import Callback, Trainer


def quiet_trainer(epochs: int, *callbacks: Callback) -> Trainer:
    """One device; no logger, checkpoints, progress bar, summary or sanity check."""
    return Trainer(
        max_epochs=epochs,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        devices=1,
    )
