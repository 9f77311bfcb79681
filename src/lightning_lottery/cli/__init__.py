"""The command line: LightningCLI, and the other commands."""

from lightning_lottery.cli.main import LotteryCLI, main

__all__ = ["LotteryCLI", "main"]
