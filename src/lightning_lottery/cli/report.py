"""The command ``report``: a page about runs, for people."""

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from lightning_lottery.cli.questions import add_question, add_runs, asked
from lightning_lottery.report import Report
from lightning_lottery.storage import REPORT
from lightning_lottery.study import experiments


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the arguments of the command."""
    add_runs(parser, "Run folders, folders of studies, or folders that contain either. Several are compared.")
    add_question(parser)
    parser.add_argument("--title", type=str | None, help="The title of the page (default: names of folders).")
    parser.add_argument(
        "--output",
        type=str | None,
        help=f"The page (default: {REPORT} in the folder of the run or study; with several, in the current one).",
    )


def write_report(options: Namespace) -> None:
    """Writes the report.

    Args:
        options: The options of :func:`add_arguments`.

    Raises:
        LotteryError: A folder or an option is invalid, or something that the report needs is missing.
    """
    shown = experiments(options.runs, options.metric, asked(options), options.ignore)
    for path in Report.of(shown, options.title).save(options.output or _default_output(options.runs)):
        print(path)


def _default_output(runs: Sequence[str]) -> Path:
    return Path(runs[0], REPORT) if len(runs) == 1 else Path(REPORT)
