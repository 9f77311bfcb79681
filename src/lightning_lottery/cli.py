"""The command ``lightning-lottery``: LightningCLI with the callback at hand, and the demo."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_lottery import LotteryTicketCallback, vision
from lightning_lottery.demo import demo
from lightning_lottery.errors import LotteryError

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
