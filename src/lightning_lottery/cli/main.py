"""The command ``lightning-lottery``: LightningCLI with the classes of this package, and further commands."""

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from io import TextIOWrapper
from pathlib import Path

from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightning_lottery import LotteryTicketCallback, TicketCallback, vision
from lightning_lottery._lightning import Command, CommandFinished, CommandLine
from lightning_lottery.cli.analyse import add_arguments as add_analyse_arguments
from lightning_lottery.cli.analyse import analyse
from lightning_lottery.cli.demo import demo
from lightning_lottery.cli.one_folder import write_into
from lightning_lottery.cli.recipes import add_arguments as add_recipes_arguments
from lightning_lottery.cli.recipes import show_recipes
from lightning_lottery.cli.report import add_arguments as add_report_arguments
from lightning_lottery.cli.report import write_report
from lightning_lottery.cli.study import add_arguments as add_study_arguments
from lightning_lottery.cli.study import study
from lightning_lottery.cli.ticket import add_arguments as add_ticket_arguments
from lightning_lottery.cli.ticket import ticket
from lightning_lottery.errors import ConfigurationError, LotteryError

# Imported classes can be given by their short names in YAML and on the command line.
__all__ = ["LotteryCLI", "LotteryTicketCallback", "TicketCallback", "main", "vision"]


class LotteryCLI(CommandLine):
    """LightningCLI for any LightningModule, with short names for the classes of this package."""

    def commands(self) -> dict[str, Command]:
        """The commands that need no LightningModule."""
        run_study = partial(study, self.parsed_fit)
        run_analyse = partial(analyse, self.parts_of_fit)
        add_ticket, run_ticket = (partial(of, self.parts_of_fit) for of in (add_ticket_arguments, ticket))
        return {
            "analyse": Command("Compares and tests the runs of a study.", add_analyse_arguments, run_analyse),
            "demo": Command.of(demo),
            "recipes": Command("Lists the experiments of papers.", add_recipes_arguments, show_recipes),
            "report": Command("Writes a page about runs, for people.", add_report_arguments, write_report),
            "study": Command("Runs the same fit with several seeds.", add_study_arguments, run_study),
            "ticket": Command("Shows, compares, converts, exports and ships tickets.", add_ticket, run_ticket),
        }

    def expanded(self, words: Sequence[str]) -> Sequence[str]:
        """The command line of a fit, with the files of recipes instead of their names."""
        return vision.expand_recipes(words)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the options for the run folder, and for resuming a run."""
        parser.add_argument(
            "--dirpath",
            type=str | None,
            help="With fit: the run folder, instead of the dirpath of LotteryTicketCallback. Loggers with a "
            "save_dir and ModelCheckpoint write there, too.",
        )
        parser.add_argument(
            "--resume",
            action="store_true",
            help="With fit: resume the run with these arguments, from its newest checkpoint or else from its "
            "first unfinished round. Without such a run, start a new one.",
        )
        parser.add_argument(
            "--resume_ignore",
            type=list[str],
            default=[],
            help="With --resume: names of hyperparameters that may differ from those of the resumed run.",
        )

    def before_instantiate_classes(self) -> None:
        """Moves all files into one folder, and allows a resumed run to overwrite its saved configuration."""
        if (folder := self.config.get(f"{self.subcommand}.dirpath")) is not None:
            write_into(self.config[str(self.subcommand)], folder)
        if self.config.get(f"{self.subcommand}.resume"):
            self.save_config_kwargs["overwrite"] = True

    def before_fit(self) -> None:
        """Finds the run to resume, and tells the callbacks how to resume on this command line."""
        options = self.config_init["fit"]
        found = [c for c in self.trainer.callbacks if isinstance(c, LotteryTicketCallback)]  # type: ignore[attr-defined]
        for callback in found:
            callback.how_to_resume = "run the same command with --resume"
        if options["resume"]:
            if not found:
                raise ConfigurationError("--resume needs a LotteryTicketCallback. Add it to trainer.callbacks.")
            if options["ckpt_path"] is not None:
                raise ConfigurationError("--resume finds the checkpoint itself. Leave out --ckpt_path.")
            options["ckpt_path"] = found[0].resume(self.trainer, ignore=options["resume_ignore"])


def main(args: Sequence[str] | None = None) -> None:
    """Runs the command line.

    Args:
        args: The arguments after the name of the command; by default those of the process.
    """
    # The default logger would write a scalar hp_metric of -1.
    logger = {
        "class_path": f"{TensorBoardLogger.__module__}.TensorBoardLogger",
        "init_args": {"save_dir": ".", "default_hp_metric": False},
    }
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # rather than fail in terminals that lack a character
    sys.path.insert(0, str(Path.cwd()))  # as with python -m, so that classes in the user's files are found
    try:
        with suppress(CommandFinished):
            LotteryCLI(args=None if args is None else list(args), trainer_defaults={"logger": logger})
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of the output, such as head, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except SIGTERMException:  # an exit with code 0, as if everything were trained
        sys.exit(128 + signal.SIGTERM)
    except Exception as error:
        if (ours := _lottery_error(error)) is None:
            raise
        sys.exit(f"{type(ours).__name__}: {ours}")


def _lottery_error(error: BaseException | None) -> LotteryError | None:
    """The error of this package behind another exception, for example one of the argument parser."""
    while error is not None and not isinstance(error, LotteryError):
        error = error.__cause__ or error.__context__
    return error
