"""LightningCLI with further commands."""

from collections.abc import Callable
from typing import Any

from jsonargparse import ArgumentParser
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI


class CommandFinished(Exception):  # noqa: N818 (not an error)
    """A command that needs no Trainer has finished, so that there is nothing left to instantiate."""


class CommandLine(LightningCLI):
    """LightningCLI with further commands, which need neither Trainer nor model.

    The constructor raises :class:`CommandFinished` after such a command.
    """

    @staticmethod
    def commands() -> dict[str, Callable[..., object]]:
        """The further commands by name, beside those of :meth:`subcommands`, which are methods of the Trainer."""
        return {}

    def setup_parser(
        self, add_subcommands: bool, main_kwargs: dict[str, Any], subparser_kwargs: dict[str, Any]
    ) -> None:
        """Adds the arguments of the commands."""
        super().setup_parser(add_subcommands, main_kwargs, subparser_kwargs)
        if not add_subcommands:
            return
        for name, function in self.commands().items():
            summary = (function.__doc__ or "").partition("\n")[0]
            parser = ArgumentParser(description=summary)
            parser.add_function_arguments(function)
            # subcommands() accepts only methods of the Trainer, and LightningCLI keeps no reference to the action.
            # This private name of jsonargparse has existed since the oldest supported version, 4.35.
            action: Any = self.parser._subcommands_action
            action.add_subcommand(name, parser, help=summary)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Runs a command that needs no Trainer as soon as its arguments are known."""
        super().parse_arguments(parser, args)
        name = self.config.get("subcommand")
        if (command := self.commands().get(name)) is not None:
            arguments = self.config[name].as_dict()
            arguments.pop("config", None)
            command(**arguments)
            raise CommandFinished
