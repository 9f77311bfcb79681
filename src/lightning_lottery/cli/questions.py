"""Options that several commands share: which runs to read, and what to ask about them."""

from typing import Literal, cast

from jsonargparse import ArgumentParser, Namespace

from lightning_lottery.analysis import VerdictOptions

# The options of a verdict, beside the metric.
_QUESTION = ("on", "mode", "at", "tolerance", "confidence")


def add_runs(parser: ArgumentParser, what: str = "Folders of a study, or run folders.") -> None:
    """Adds the arguments that name runs."""
    parser.add_argument("runs", nargs="+", help=what)
    parser.add_argument(
        "--ignore",
        default=[],
        action="append",
        metavar="NAME",
        help="A hyperparameter that may differ between the runs (repeatable).",
    )


def add_question(parser: ArgumentParser) -> None:
    """Adds the options of a verdict."""
    parser.add_argument("--metric", type=str | None, help="What to compare (default: the monitored metric).")
    parser.add_argument(
        "--on",
        type=Literal["fit", "test"] | None,
        help="Where the metric was measured, if both have one of this name (default: fit).",
    )
    parser.add_argument(
        "--mode",
        type=Literal["min", "max"] | None,
        help="Whether small or large values are better; needed unless the metric was monitored.",
    )
    parser.add_argument(
        "--at",
        type=Literal["best", "end"] | None,
        help="The best value of each training (default for the monitored metric), or the one at its end.",
    )
    parser.add_argument("--tolerance", type=float, default=0.0, help="How much worse than dense still matches.")
    parser.add_argument("--confidence", type=float, default=0.95, help="Of the intervals (default: 0.95).")


def asked(options: Namespace, *others: str) -> VerdictOptions:
    """The options of a verdict, and others, by name."""
    return cast(VerdictOptions, {name: options[name] for name in (*_QUESTION, *others)})
