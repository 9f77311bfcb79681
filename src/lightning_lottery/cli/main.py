"""The command ``lightning-lottery``: LightningCLI with the callback at hand, and the demo."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_lottery import LotteryTicketCallback, vision
from lightning_lottery.cli.demo import demo
from lightning_lottery.errors import ConfigurationError, LotteryError

# Classes that are imported go by their short names in YAML and on the command line.
__all__ = ["LotteryCLI", "LotteryTicketCallback", "main", "vision"]


class LotteryCLI(LightningCLI):
    """LightningCLI for any LightningModule, with short names for the classes of this package."""

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Names the demo in the help."""
        kwargs["epilog"] = (
            "One more command, 'lightning-lottery demo', shows the lottery ticket effect in minutes."
        )
        return super().init_parser(**kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the option to go on with a run."""
        parser.add_argument(
            "--resume",
            action="store_true",
            help="With fit: go on with the run that these arguments have begun, from its newest checkpoint, or "
            "else from its first unfinished round; begin a run if there is none.",
        )

        parser.add_argument(
            "--resume_ignore",
            type=list[str],
            default=[],
            help="With --resume: names of hyperparameters that may differ from those that the run was begun with.",
        )

    def before_instantiate_classes(self) -> None:
        """Lets a run that goes on write its configuration again."""
        if self.config.get(f"{self.subcommand}.resume"):
            self.save_config_kwargs["overwrite"] = True

    def before_fit(self) -> None:
        """Finds the run to go on with, and lets callbacks say how to do so on this command line."""
        options = self.config_init["fit"]
        found = [c for c in self.trainer.callbacks if isinstance(c, LotteryTicketCallback)]  # type: ignore[attr-defined]
        for callback in found:
            callback.how_to_resume = "the same command with --resume"
        if options["resume"]:
            if not found:
                raise ConfigurationError(
                    "--resume goes on with a run of LotteryTicketCallback: add it to trainer.callbacks."
                )
            if options["ckpt_path"] is not None:
                raise ConfigurationError("--resume finds the checkpoint by itself: leave out --ckpt_path.")
            options["ckpt_path"] = found[0].resume(self.trainer, ignore=options["resume_ignore"])


def main(args: Sequence[str] | None = None) -> None:
    """Runs the command line.

    Args:
        args: Words after the command's name; those of the process if left out.
    """
    words = sys.argv[1:] if args is None else list(args)
    sys.path.insert(0, str(Path.cwd()))  # as with python -m, so that classes of the user's own files are found
    try:
        if words[:1] == ["demo"]:
            parser = ArgumentParser(prog="lightning-lottery demo", description="Finds winning tickets in minutes.")
            parser.add_function_arguments(demo)
            demo(**vars(parser.parse_args(words[1:])))
        else:
            # Without a logger of the user's own, one that does not write a scalar hp_metric of -1.
            logger = {
                "class_path": f"{TensorBoardLogger.__module__}.TensorBoardLogger",
                "init_args": {"save_dir": ".", "default_hp_metric": False},
            }
            LotteryCLI(args=None if args is None else words, trainer_defaults={"logger": logger})
    except Exception as error:
        if (ours := _lottery_error(error)) is None:
            raise
        sys.exit(f"{type(ours).__name__}: {ours}")


def _lottery_error(error: BaseException | None) -> LotteryError | None:
    """The error of this package that another one was raised for, as by the parser of the command line."""
    while error is not None and not isinstance(error, LotteryError):
        error = error.__cause__ or error.__context__
    return error
