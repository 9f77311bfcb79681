"""The command ``analyse``: what the runs of a study show."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser, Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.model_helpers import is_overridden

from lightning_lottery.analysis import record_tests
from lightning_lottery.cli.parts import Build, words_of_fit
from lightning_lottery.cli.questions import add_question, add_runs, asked
from lightning_lottery.cli.quiet import quiet
from lightning_lottery.errors import ConfigurationError
from lightning_lottery.report import verdict_text
from lightning_lottery.storage import RoundTest, RunFolder
from lightning_lottery.study import VERDICT, Replicate, Study

_SUMMARIES = {
    "verdict": "Compares tickets and controls with the dense network, over seeds.",
    "test": "Measures the checkpoints of all rounds on the test set.",
}


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the commands below ``analyse``, with their arguments."""
    commands = parser.add_subcommands(required=True, dest="command")
    verdict = ArgumentParser(description=_SUMMARIES["verdict"])
    add_runs(verdict)
    add_question(verdict)
    verdict.add_argument(
        "--reach",
        type=float | Literal["dense"] | None,
        help="Also compare when this value is first reached; dense is the value of round 0 with the same seed.",
    )
    verdict.add_argument("--output", type=str | None, help="The file (default: verdict.json in the study).")
    commands.add_subcommand("verdict", verdict, help=_SUMMARIES["verdict"])
    test = ArgumentParser(description=_SUMMARIES["test"])
    add_runs(test)
    test.add_argument(
        "--config", required=True, action="append", help="The configuration of the fit (repeatable)."
    )
    test.add_argument("--override", default=[], action="append", help="Such as data.batch_size=10 (repeatable).")
    commands.add_subcommand("test", test, help=_SUMMARIES["test"])


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
    verdict = runs.verdict(options.metric, **asked(options, "reach"))
    path = Path(options.output or _default_output(options.runs))
    verdict.save(path)
    print(f"{verdict_text(verdict)}\n\n{path}")


def _default_output(runs: Sequence[str]) -> Path:
    """In the folder of a study; otherwise in the current folder, rather than in one of several run folders."""
    is_study = len(runs) == 1 and RunFolder.at(runs[0]) is None
    return Path(runs[0], VERDICT) if is_study else Path(VERDICT)


def _test(build: Build, options: Namespace) -> None:
    failed = []
    for replicate in Study.read(*options.runs, ignore=options.ignore).values():
        print(f"{replicate.path}:", flush=True)
        try:
            _test_run(build, replicate, _words(options.config, options.override, replicate))
        except ConfigurationError as error:  # the others may have what this run lacks
            failed.append(str(error))
    if failed:
        raise ConfigurationError("\n".join(dict.fromkeys(failed)))


def _words(configs: Sequence[str], overrides: Sequence[str], replicate: Replicate) -> list[str]:
    """The command line of a fit that makes the network and the data of a run."""
    seed = replicate.description.seed_everything  # data may be split at random
    return words_of_fit(configs, overrides, *([] if seed is None else [f"--seed_everything={seed}"]))


def _test_run(build: Build, replicate: Replicate, words: list[str]) -> None:
    with quiet():
        trainer, model, data = build(words)
    source = model if data is None else data
    if not is_overridden("test_dataloader", source):  # Lightning's own error would leave its changes to DataLoader
        name = f"{type(source).__module__}.{type(source).__qualname__}"
        raise ConfigurationError(f"{name} has no test_dataloader, so there is nothing to test.")

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
    return " · ".join(
        f"{what} "
        + (", ".join(f"{name} {value:.4f}" for name, value in metrics.items()) if metrics else "not kept")
        for what, metrics in (("last weights", test.last), ("best validation", test.best))
    )
