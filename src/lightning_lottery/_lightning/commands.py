"""LightningCLI with further commands."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI


class CommandFinished(Exception):  # noqa: N818 (not an error)
    """A command that needs no Trainer has finished, so that there is nothing left to instantiate."""


@dataclass(frozen=True)
class Command:
    """A command that needs neither Trainer nor model.

    Attributes:
        summary: One line for the help.
        add_arguments: Adds its arguments to a parser.
        run: Is called with the values of the arguments.
    """

    summary: str
    add_arguments: Callable[[ArgumentParser], object]
    run: Callable[[Namespace], object]

    @classmethod
    def of(cls, function: Callable[..., object]) -> "Command":
        """A command with the arguments of a function."""

        def run(options: Namespace) -> None:
            function(**{name: value for name, value in options.as_dict().items() if name != "config"})

        summary = (function.__doc__ or "").partition("\n")[0]
        return cls(summary, lambda parser: parser.add_function_arguments(function), run)


class CommandLine(LightningCLI):
    """LightningCLI with further commands, which need neither Trainer nor model.

    The constructor raises :class:`CommandFinished` after such a command.
    """

    def commands(self) -> dict[str, Command]:
        """The further commands by name, beside those of :meth:`subcommands`, which are methods of the Trainer."""
        return {}

    def setup_parser(
        self, add_subcommands: bool, main_kwargs: dict[str, Any], subparser_kwargs: dict[str, Any]
    ) -> None:
        """Adds the arguments of the commands."""
        # Abbreviations would also be looked for among the options of commands: --print could mean --print_config.
        super().setup_parser(add_subcommands, {"allow_abbrev": False, **main_kwargs}, subparser_kwargs)
        if not add_subcommands:
            return
        for name, command in self.commands().items():
            # subcommands() accepts only methods of the Trainer, and LightningCLI keeps no reference to the action.
            # This private name of jsonargparse has existed since the oldest supported version, 4.35.
            action: Any = self.parser._subcommands_action
            parser = ArgumentParser(description=command.summary)
            action.add_subcommand(name, parser, help=command.summary)
            command.add_arguments(parser)  # afterwards, since these may be commands again

    def expanded(self, words: Sequence[str]) -> Sequence[str]:
        """The command line of a fit, after replacing words that stand for others. By default none does."""
        return words

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Runs a command that needs no Trainer as soon as its arguments are known."""
        words = sys.argv[1:] if args is None else args
        if isinstance(words, list) and words and words[0] not in self.commands():
            # Not by super(): LightningCLI warns if it is given arguments while sys.argv has some. The further
            # commands get their words as they were typed.
            self.config = parser.parse_args(self.expanded(words))
        else:
            super().parse_arguments(parser, args)
        name = self.config.get("subcommand")
        if (command := self.commands().get(name)) is not None:
            command.run(self.config[name])
            raise CommandFinished

    def parsed_fit(self, words: list[str]) -> Namespace:
        """The configuration of another fit, checked but not instantiated.

        Args:
            words: The command line after ``fit``.

        Raises:
            SystemExit: An option is unknown or invalid, or a file is missing. The reason is printed.
        """
        parsed: Namespace = self.parser.parse_args(["fit", *self.expanded(words)]).fit
        return parsed

    def parts_of_fit(self, words: list[str]) -> tuple[Trainer, LightningModule, LightningDataModule | None]:
        """The objects of another fit, which is not run.

        Args:
            words: The command line after ``fit``.

        Raises:
            SystemExit: An option is unknown or invalid, or a file is missing. The reason is printed.
        """
        # As LightningCLI does for its own command line. Nothing is to be written, so no configuration either.
        self.config, self.subcommand = self.parser.parse_args(["fit", *self.expanded(words)]), "fit"
        self.save_config_callback = None
        vars(self).pop("config_dump", None)  # of an earlier call
        self._set_seed()
        self.before_instantiate_classes()
        self.instantiate_classes()
        return self.trainer, self.model, self.datamodule
