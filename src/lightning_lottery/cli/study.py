"""The command ``study``: the same fit with several seeds."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from lightning_lottery.analysis import has_scipy
from lightning_lottery.callback import LotteryTicketCallback
from lightning_lottery.cli.one_folder import lottery_of
from lightning_lottery.cli.recipes import name_of_configs
from lightning_lottery.errors import ConfigurationError
from lightning_lottery.plain import check_integer
from lightning_lottery.report import verdict_text
from lightning_lottery.storage import REPORT
from lightning_lottery.study import FIT_OPTIONS, VERDICT, Engine, Processes, Ray, Replicates, Study


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.usage = "%(prog)s --config CONFIG [options] [-- overrides of fit]"
    parser.add_argument(
        "--config",
        required=True,
        action="append",
        help="The configuration of a fit: a file, or recipe:NAME (repeatable).",
    )
    parser.add_argument(
        "--seeds",
        type=int | list[int],
        default=5,
        help="Their number, or a list such as [0,7,42] (default: 5).",
    )
    parser.add_argument(
        "--dirpath",
        type=str | None,
        help="The folder of the study (default: runs/<name of the last config>).",
    )
    parser.add_argument(
        "--jobs", type=int | None, help="How many seeds run at the same time (default: one per GPU, or CPU core)."
    )
    parser.add_argument(
        "--ray",
        nargs="?",
        const=Ray.address,
        metavar="ADDRESS",
        help="Use Ray: on this machine, or on the cluster at an address such as auto.",
    )
    parser.add_argument(
        *("--gpus-per-seed", "--gpus_per_seed"),
        type=float | None,
        metavar="G",
        help="GPUs for each seed; a fraction below 1 lets seeds share GPUs (default: 1 if there are any).",
    )
    parser.add_argument("--print", action="store_true", help="Print one shell command per seed; start nothing.")
    parser.add_argument("overrides", nargs="*", default=[], help="After --: further options of fit.")


def study(parse: Callable[[list[str]], Namespace], options: Namespace) -> None:
    """Runs the same fit with several seeds.

    Args:
        parse: Checks the options of a fit, without instantiating anything.
        options: The options of :func:`add_arguments`.

    Raises:
        ConfigurationError: An option, or the configuration of the callback, is invalid.
        TrainingError: Seeds have failed.
    """
    seeds = options.seeds
    if isinstance(seeds, int):
        seeds = range(check_integer("seeds", seeds, 1, "--seeds 5"))
    _check_overrides(options.overrides)
    words = [*(word for path in options.config for word in ("--config", path)), *options.overrides]
    program = [sys.executable, "-m", "lightning_lottery", "fit"]
    dirpath = options.dirpath or Path("runs") / name_of_configs(options.config)
    experiment = Study(dirpath, [*program, *words, *FIT_OPTIONS], seeds)
    _check_callback(parse(list(experiment.jobs()[0].command[len(program) :])))
    if options.ray is None:
        engine: Engine = Processes(options.jobs, options.gpus_per_seed)
    else:
        engine = Ray(options.ray, options.jobs, options.gpus_per_seed)
    if options.print:
        print("\n".join(experiment.commands()))
        return
    try:
        runs = experiment.run(engine)
    except KeyboardInterrupt:
        sys.exit(130)
    if next(iter(runs.values())).monitor is not None:
        _print_verdict(runs, experiment.dirpath)
    if (page := experiment.dirpath / REPORT).exists():
        print(f"Report: {page}")


def _print_verdict(runs: Replicates, dirpath: Path) -> None:
    if not has_scipy():
        print("No verdict, since SciPy is not installed. Write pip install 'lightning-lottery[study]'.")
        return
    verdict = runs.verdict()
    verdict.save(dirpath / VERDICT)
    print(f"\n{verdict_text(verdict)}\n\n{dirpath / VERDICT}")
    print(f"Other questions: lightning-lottery analyse verdict {dirpath}")


def _check_overrides(words: Sequence[str]) -> None:
    """Checks that no override is set by the study itself."""
    instead = {
        "--seed_everything": "Write --seeds [77].",
        "--dirpath": "Write it before --.",
        "--ckpt_path": "Each seed finds its own checkpoint. Leave it out.",
    }
    for word in words:
        if (name := word.partition("=")[0]) in instead:
            raise ConfigurationError(f"{name} after -- would be the same for all seeds. {instead[name]}")


def _check_callback(config: Namespace) -> None:
    """Checks the arguments of the callback now, rather than in every process."""
    parser = ArgumentParser()
    parser.add_argument("--callback", type=LotteryTicketCallback)
    parser.instantiate_classes(parser.parse_object({"callback": lottery_of(config)}))
