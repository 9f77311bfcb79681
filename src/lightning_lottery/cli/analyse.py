"""The command ``analyse``: what the runs of a study show."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser, Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, LightningModule, Trainer

from lightning_lottery.analysis import record_tests
from lightning_lottery.cli.quiet import quiet
from lightning_lottery.errors import ConfigurationError
from lightning_lottery.storage import RoundTest
from lightning_lottery.study import Replicate, Replicates, Study

# Makes Trainer, network and data from the command line after "fit".
Build = Callable[[list[str]], tuple[Trainer, LightningModule, LightningDataModule | None]]


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the commands below ``analyse``, with their arguments."""
    commands = parser.add_subcommands(required=True, dest="command")
    verdict = ArgumentParser(description=_SUMMARIES["verdict"])
    _add_runs(verdict)
    verdict.add_argument("--metric", type=str | None, help="What to compare (default: the monitored metric).")
    verdict.add_argument("--mode", type=Literal["min", "max"] | None, help="Needed for other metrics.")
    verdict.add_argument("--at", type=Literal["best", "end"] | None, help="Best value, or value at the end.")
    verdict.add_argument("--tolerance", type=float, default=0.0, help="How much worse than dense still matches.")
    verdict.add_argument("--reach", type=float | None, help="Also compare when this value is first reached.")
    verdict.add_argument("--confidence", type=float, default=0.95, help="Of the intervals (default: 0.95).")
    verdict.add_argument("--output", type=str | None, help="The file (default: verdict.json in the first folder).")
    commands.add_subcommand("verdict", verdict, help=_SUMMARIES["verdict"])
    test = ArgumentParser(description=_SUMMARIES["test"])
    _add_runs(test)
    test.add_argument(
        "--config", required=True, action="append", help="The configuration of the fit (repeatable)."
    )
    test.add_argument("--override", default=[], action="append", help="Such as data.batch_size=10 (repeatable).")
    commands.add_subcommand("test", test, help=_SUMMARIES["test"])


_SUMMARIES = {
    "verdict": "Compares tickets and controls with the dense network, over seeds.",
    "test": "Measures the checkpoints of all rounds on the test set.",
}


def _add_runs(parser: ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", help="Folders of a study, or run folders.")
    parser.add_argument(
        "--ignore", type=list[str], default=[], help="Names of hyperparameters that may differ between the runs."
    )


def analyse(build: Build, options: Namespace) -> None:
    """Runs a command below ``analyse``.

    Args:
        build: Makes Trainer, network and data from the command line of a fit.
        options: The options of :func:`add_arguments`.

    Raises:
        LotteryError: A folder or an option is invalid, or something that the command needs is missing.
    """
    if options.command == "verdict":
        _verdict(options.verdict)
    else:
        _test(build, options.test)


def _verdict(options: Namespace) -> None:
    runs = Study.read(*options.runs, ignore=options.ignore)
    print_verdict(runs, options, Path(options.output or Path(options.runs[0]) / "verdict.json"))


def print_verdict(runs: Replicates, options: Namespace, path: Path) -> None:
    """Prints a verdict, and writes it to a file."""
    names = ("mode", "at", "tolerance", "reach", "confidence")
    chosen = {name: options[name] for name in names if name in options}
    runs.verdict(options.get("metric"), **chosen).save(path)
    print(f"{runs.table(options.get('metric'), **chosen)}\n\n{path}")


def _test(build: Build, options: Namespace) -> None:
    for replicate in Study.read(*options.runs, ignore=options.ignore).values():
        print(f"{replicate.path}:", flush=True)
        _test_run(build, replicate, _words(options.config, options.override, replicate))


def _words(configs: Sequence[str], overrides: Sequence[str], replicate: Replicate) -> list[str]:
    """The command line of a fit that makes the network and the data of a run."""
    words = [word for path in configs for word in ("--config", path)]
    words += [f"--{override.lstrip('-')}" for override in overrides]
    words += ["--trainer.logger=false", "--trainer.enable_progress_bar=false"]
    seed = replicate.description.seed_everything  # data may be split at random
    return words if seed is None else [*words, f"--seed_everything={seed}"]


def _test_run(build: Build, replicate: Replicate, words: list[str]) -> None:
    with quiet():
        trainer, model, data = build(words)

    def evaluate(path: str) -> list[dict[str, float]]:
        with quiet():
            return list(map(dict, trainer.test(model, datamodule=data, ckpt_path=path, verbose=False)))

    try:
        tests = record_tests(replicate.path, evaluate)
    except MisconfigurationException as error:
        raise ConfigurationError(f"The test set cannot be used: {error}") from error
    for test in tests.values():
        print(f"  {test.id}: {_shown(test)}", flush=True)


def _shown(test: RoundTest) -> str:
    parts = {"last weights": test.last, "best validation": test.best}
    shown = [
        f"{what} " + ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        for what, metrics in parts.items()
        if metrics is not None
    ]
    return " · ".join(shown)
