"""The part of the callback that resumes runs."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from lightning_lottery._lightning import RoundsLoop
from lightning_lottery.callback.results import Results
from lightning_lottery.errors import ConfigurationError
from lightning_lottery.preflight import FitRequest, check_finders, check_resume, find_run
from lightning_lottery.rules import Plan, Settings
from lightning_lottery.storage import RunFolder, RunState


class Resumable(Results):
    """Base class of the callback: finds runs to resume, and loads the state in checkpoints.

    Attributes:
        how_to_resume: What to tell the user when a run is interrupted. A command line may set its own text.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.how_to_resume = "call trainer.fit(..., ckpt_path=lottery.resume(trainer))"
        self._ignore: Sequence[str] = ()

    def _reset(self) -> None:
        super()._reset()
        self._loop: RoundsLoop | None = None
        self._request = FitRequest()

    def resume(self, trainer: Trainer, ignore: Sequence[str] = ()) -> str | None:
        """Finds the run to resume: the one in ``dirpath``, or else the newest matching run.

        A run matches if it has the same arguments, limits of the Trainer and seed of ``seed_everything``. Other
        runs are other experiments and are ignored.

        Args:
            trainer: The Trainer for the resumed fit.
            ignore: Patterns of names of hyperparameters (``LightningModule.hparams``) that may differ between the
                old run and this one, such as ``["run_name"]``. The callback remembers them.

        Returns:
            The value for ``trainer.fit(model, ckpt_path=lottery.resume(trainer))``: the newest checkpoint of the
            unfinished round; or without such a checkpoint the run folder, so that ``fit`` restarts the first
            unfinished round. ``None`` if no run is found, so that ``fit`` starts a new one.

        Raises:
            ConfigurationError: ``ignore`` is not a list of strings.
        """
        if isinstance(ignore, str) or not all(isinstance(name, str) for name in ignore):
            raise ConfigurationError(f"ignore={ignore!r} is not a list of names. Write ignore=['run_name'].")
        self._ignore = tuple(ignore)
        if (folder := find_run(trainer, self.settings)) is None:
            return None
        plan = Plan.of(self.settings).shortened(self.settings, folder.read_records())
        return plan.newest_checkpoint(folder) or str(folder.path.absolute())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keeps the state in a checkpoint until training begins."""
        self._request = replace(self._request, state=RunState.load(state_dict))

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Moves checkpoint callbacks, whose states are loaded next, to the folder of the round."""
        state = checkpoint.get("callbacks", {}).get(self.state_key)
        if state and self._loop is not None:
            check_finders(trainer)  # before the finders start, in on_fit_start
            self._loop.checkpoints.enter(RunState.load(state).id.name)
            if trainer.precision == "64-true":  # Lightning loads weights before it converts the module to double
                self._request = replace(self._request, double_weights=checkpoint["state_dict"])

    def _before_loading(self, path: str | os.PathLike[str] | None) -> bool:
        if self._loop is None or (folder := RunFolder.at(path)) is None:
            return False
        check_resume(self._loop.trainer, is_resumed=True)
        check_finders(self._loop.trainer)
        self._request = replace(self._request, folder=folder)
        return True
