"""The command ``lightning-lottery``: LightningCLI with the callback at hand, and the demo."""

import sys
from collections.abc import Sequence

from jsonargparse import ArgumentParser
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_lottery import LotteryTicketCallback, vision
from lightning_lottery.demo import demo
from lightning_lottery.errors import LotteryError

# Classes that are imported go by their short names in YAML and on the command line.
__all__ = ["LotteryCLI", "LotteryTicketCallback", "main", "vision"]


class LotteryCLI(LightningCLI):
    """LightningCLI for any LightningModule, with short names for the classes of this package."""

    def init_parser(self, **kwargs: object) -> LightningArgumentParser:
        """Names the demo in the help."""
        epilog = "There is one more command: 'lightning-lottery demo' shows the lottery ticket effect in minutes."
        return super().init_parser(**{**kwargs, "epilog": epilog})


def main(args: Sequence[str] | None = None) -> None:
    """Runs the command line.

    Args:
        args: Words after the command's name; those of the process if left out.
    """
    words = list(sys.argv[1:] if args is None else args)
    try:
        if words[:1] == ["demo"]:
            parser = ArgumentParser(prog="lightning-lottery demo")
            parser.add_function_arguments(demo)
            demo(**vars(parser.parse_args(words[1:])))
        else:
            _lightning_cli(words)
    except LotteryError as error:
        sys.exit(f"{type(error).__name__}: {error}")


def _lightning_cli(args: ArgsType) -> None:
    # Lightning writes a scalar hp_metric of -1 otherwise.
    logger = {
        "class_path": f"{TensorBoardLogger.__module__}.TensorBoardLogger",
        "init_args": {"save_dir": ".", "default_hp_metric": False},
    }
    LotteryCLI(args=args, trainer_defaults={"logger": logger}, save_config_kwargs={"overwrite": True})
