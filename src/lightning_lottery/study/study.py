"""The same experiment with several seeds."""

import os
import shlex
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from lightning_lottery.analysis import has_scipy
from lightning_lottery.errors import ConfigurationError
from lightning_lottery.files import local_path
from lightning_lottery.plain import check_integer, plain
from lightning_lottery.report import report_after_training
from lightning_lottery.storage import REPORT, RunFolder
from lightning_lottery.study.display import display
from lightning_lottery.study.engine import Engine, Processes
from lightning_lottery.study.identity import keep_same
from lightning_lottery.study.job import Job
from lightning_lottery.study.replicates import Replicates
from lightning_lottery.study.running import Running, make_folder, stopped_by_signals

# What a fit of this package's command line needs to be one seed of a study.
FIT_OPTIONS = ("--seed_everything={seed}", "--dirpath={dirpath}", "--resume")
VERDICT = "verdict.json"  # in the folder of a study
_LARGEST_SEED = 2**32 - 1  # of NumPy


class Study:
    """The same experiment with several seeds: one process and one run folder per seed.

    The command is run for every seed, and must resume its run if there is one, as ``fit --resume`` does. So
    :meth:`run` can simply be called again after an interruption. Seeds that are finished are not trained again.

    Args:
        dirpath: The folder of the study. The run folder of seed 0 is ``<dirpath>/seed_0``.
        command: The words of the command. ``{seed}`` and ``{dirpath}`` in them are replaced by the seed and its
            run folder. If no word contains them, the command is a fit of this package's command line, such as
            ``["lightning-lottery", "fit", "--config", "exp.yaml"]``, and the options ``--seed_everything``,
            ``--dirpath`` and ``--resume`` are appended.
        seeds: The seeds, such as ``range(5)`` or ``[0, 7, 42]``.

    Raises:
        ConfigurationError: An argument is invalid.

    Examples:
        >>> study = Study("exp", ["lightning-lottery", "fit", "--config", "exp.yaml"], seeds=range(5))
        >>> print(study.commands()[0])
        OMP_NUM_THREADS=1 lightning-lottery fit --config exp.yaml --seed_everything=0 --dirpath=exp/seed_0 --resume
    """

    def __init__(self, dirpath: str | os.PathLike[str], command: Sequence[str], seeds: Iterable[int]) -> None:
        self.dirpath = local_path(os.fspath(dirpath), "Study('runs/exp', ...)")
        self.command = _checked_command(command)
        self.seeds = _checked_seeds(seeds)

    def jobs(self) -> list[Job]:
        """What is run for each seed."""
        return [self._job(seed, self.dirpath / f"seed_{seed}") for seed in self.seeds]

    def _job(self, seed: int, folder: Path) -> Job:
        words = [word.replace("{seed}", str(seed)).replace("{dirpath}", str(folder)) for word in self.command]
        return Job(seed, folder, words)

    def commands(self) -> list[str]:
        """One shell command per seed, for job arrays of SLURM, submitit, and the like."""
        threads = shlex.quote(os.environ.get("OMP_NUM_THREADS", "1"))  # as in run
        return [f"OMP_NUM_THREADS={threads} {shlex.join(job.command)}" for job in self.jobs()]

    def run(self, engine: Engine | None = None) -> Replicates:
        """Runs all seeds that are not finished, and writes ``report.html`` into the folder of the study.

        What a seed prints is in ``fit.log`` in its run folder. On Ctrl-C, all processes are stopped. Without the
        extras ``report`` and ``study``, no report is written.

        Args:
            engine: What runs the processes: :class:`Processes` on this machine, by default, or :class:`Ray`.

        Returns:
            The runs by seed.

        Raises:
            ConfigurationError: The command or the engine does not exist; or the folder contains a run itself, or a
                study with another command or configuration, or another study runs in it.
            FolderError: The folder cannot be written.
            TrainingError: Seeds have failed or ended early. The others have been trained.
        """
        if engine is not None and not isinstance(engine, Engine):
            raise ConfigurationError(f"engine={engine!r} is not an engine. Write for example Processes(jobs=2).")
        if shutil.which(self.command[0]) is None:
            raise ConfigurationError(f"The command {self.command[0]!r} was not found. Write its path.")
        jobs, folder = self.jobs(), RunFolder(self.dirpath)
        if folder.has_run():
            raise ConfigurationError(f"{str(self.dirpath)!r} contains a run itself. Choose another dirpath.")
        make_folder(self.dirpath)
        if not folder.lock(wait=0):
            raise ConfigurationError(f"Another study runs in {str(self.dirpath)!r}. Choose another dirpath.")
        try:
            keep_same(self.dirpath, self.command)
            for job in jobs:
                make_folder(job.folder)
            self._run(jobs, engine or Processes())
        finally:
            folder.unlock()
        runs = Replicates.of([job.folder for job in jobs])
        if has_scipy():
            report_after_training(runs.experiment, self.dirpath / REPORT)
        return runs

    def _run(self, jobs: Sequence[Job], engine: Engine) -> None:
        # Twice, since Ray sets its own reactions to signals when it starts.
        with stopped_by_signals(), engine.open(self.dirpath) as workers, stopped_by_signals():
            shown = display()
            running = Running(jobs, workers, shown)
            try:
                with shown:
                    running.run()
            except (KeyboardInterrupt, SystemExit):
                print("Stopping. To go on, start the study again.", flush=True)
                raise
            finally:
                print(f"{running.finished} of {len(jobs)} seeds are finished: {self.dirpath}", flush=True)

    @staticmethod
    def read(*paths: str | os.PathLike[str], ignore: Sequence[str] = ()) -> Replicates:
        """Reads the runs of one experiment, whoever has made them: a study, Hydra, SLURM, or you.

        Args:
            paths: Folders. All run folders in them and below them are read, finished or not.
            ignore: Patterns of names of hyperparameters that may differ, such as ``["run_name"]``.

        Returns:
            The runs by seed.

        Raises:
            ConfigurationError: A path is not a folder, no run was found, two runs have the same seed, or the runs
                are different experiments.
            LotteryError: The records of a run are damaged.
        """
        return Replicates.read(paths, ignore)


def _checked_command(command: Sequence[str]) -> tuple[str, ...]:
    if isinstance(command, str) or not command or not all(isinstance(word, str) for word in command):
        raise ConfigurationError(
            f"command={command!r} is not a list of words. Write for example "
            "command=['lightning-lottery', 'fit', '--config', 'exp.yaml']."
        )
    places = [place for place in ("{seed}", "{dirpath}") if any(place in word for word in command)]
    if not places:
        return (*command, *FIT_OPTIONS)
    if len(places) == 1:
        missing = "{dirpath}" if places == ["{seed}"] else "{seed}"
        raise ConfigurationError(
            f"The command contains {places[0]} but not {missing}. Write both, or none for lightning-lottery fit."
        )
    return tuple(command)


def _checked_seeds(seeds: Iterable[int]) -> list[int]:
    if isinstance(seeds, (str, int)) or not isinstance(seeds, Iterable):
        raise ConfigurationError(
            f"seeds={seeds!r} is not a list. Write for example seeds=range(5) or seeds=[0, 7]."
        )
    checked = [check_integer("seeds", seed, 0, "seeds=[0, 7, 42]") for seed in plain(list(seeds))]
    if not checked or len(set(checked)) < len(checked) or max(checked) > _LARGEST_SEED:
        raise ConfigurationError(
            f"seeds={checked} must be different numbers up to {_LARGEST_SEED}, and at least one. Write for "
            "example seeds=range(5)."
        )
    return checked
