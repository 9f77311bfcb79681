"""Trainer, network and data of a configuration, for commands that do not fit."""

from collections.abc import Callable, Sequence

from lightning.pytorch import LightningDataModule, LightningModule, Trainer

# Makes Trainer, network and data from the command line after "fit".
Build = Callable[[list[str]], tuple[Trainer, LightningModule, LightningDataModule | None]]


def words_of_fit(configs: Sequence[str], overrides: Sequence[str], *others: str) -> list[str]:
    """The command line of a fit on one device, without logger and progress bar.

    Args:
        configs: The configuration files.
        overrides: What the user has changed, such as ``data.batch_size=10``.
        *others: Further words, which overrides can change.
    """
    words = [word for path in configs for word in ("--config", path)]
    # Samplers of several processes would repeat images.
    words += ["--trainer.devices=1", "--trainer.num_nodes=1", "--trainer.strategy=auto"]
    words += ["--trainer.logger=false", "--trainer.enable_progress_bar=false", *others]
    return [*words, *(f"--{override.lstrip('-')}" for override in overrides)]
