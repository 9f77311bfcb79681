"""A callback whose run can go on: what it finds, and what it takes over from a checkpoint."""

import os
from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from lightning_lottery import preflight
from lightning_lottery._lightning import RoundsFit
from lightning_lottery.errors import ConfigurationError
from lightning_lottery.preflight import Settings
from lightning_lottery.rounds.results import Results
from lightning_lottery.rules import next_checkpoint
from lightning_lottery.storage import RunFolder, RunState


class Resumable(Results):
    """The part of the callback that goes on with a run.

    Attributes:
        how_to_resume: What a user is told to do when a run is interrupted; a command line may set its own.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.how_to_resume = "fit(..., ckpt_path=lottery.resume(trainer))"
        self._ignore: Sequence[str] = ()  # hyperparameters that may differ when a run goes on

    def _forget(self) -> None:
        super()._forget()
        self._fit: RoundsFit | None = None
        self._loaded: RunState | None = None  # from a checkpoint; it counts when training begins
        self._to_resume: RunFolder | None = None  # if ckpt_path names a run folder
        self._doubles: dict[str, Any] = {}

    def resume(self, trainer: Trainer, ignore: Sequence[str] = ()) -> str | None:
        """Finds the run to go on with: that in ``dirpath``, or else the newest like this one.

        Without ``dirpath`` a run is like this one if the arguments, the limits of the Trainer and the seed of
        ``seed_everything`` are the same; any other is another experiment, and left alone.

        Args:
            trainer: The Trainer that is to go on.
            ignore: Patterns of names of hyperparameters (``LightningModule.hparams``) that may differ from those
                that the run was begun with, such as ``["run_name"]``; the callback remembers them.

        Returns:
            What to pass on, as in ``trainer.fit(model, ckpt_path=lottery.resume(trainer))``: the newest checkpoint
            of the round that was training; or the run folder, if there is no such checkpoint, with which ``fit``
            begins the first unfinished round. ``None`` if no run was begun: ``fit`` begins one.

        Raises:
            ConfigurationError: ``ignore`` is not a list of strings.
        """
        if isinstance(ignore, str) or not all(isinstance(name, str) for name in ignore):
            raise ConfigurationError(f"ignore={ignore!r} is not a list of names. Write ignore=['run_name'].")
        self._ignore = tuple(ignore)
        if (folder := preflight.find_run(trainer, self.settings)) is None:
            return None
        return next_checkpoint(folder, self.settings.plan_after(folder.read_records())) or str(
            folder.path.absolute()
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keeps what a checkpoint holds until training begins."""
        self._loaded = RunState.load(state_dict)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Lets checkpoint callbacks, whose states are loaded next, find themselves in the folder of the round."""
        state = checkpoint.get("callbacks", {}).get(self.state_key)
        if state and self._fit is not None:
            preflight.check_finders(trainer)  # before they begin, in on_fit_start
            self._fit.checkpoints.enter(RunState.load(state).name)
            if trainer.precision == "64-true":  # Lightning loads them before it makes the module one of doubles
                self._doubles = checkpoint["state_dict"]

    def _loading(self, path: str | os.PathLike[str] | None) -> bool:
        if (folder := RunFolder.at(path)) is None:
            return False
        preflight.check_resume(self._rounds_fit.trainer, is_resumed=True)
        preflight.check_finders(self._rounds_fit.trainer)
        self._to_resume = folder
        return True

    def _folder_to_resume(self, trainer: Trainer) -> RunFolder:
        if self._to_resume is not None:
            return self._to_resume
        assert self._loaded is not None, "only if a checkpoint was loaded"
        return preflight.folder_of(trainer, self._loaded, self.settings)

    @property
    def _rounds_fit(self) -> RoundsFit:
        assert self._fit is not None, "only between setup and teardown of a fit"
        return self._fit
