"""The command line, with one file per command."""

from lightning_lottery.cli.main import LotteryCLI, main

__all__ = ["LotteryCLI", "main"]
