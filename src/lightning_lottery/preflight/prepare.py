"""The start of a run: from the request of a fit to everything that its first round needs."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lightning.pytorch import LightningModule
from torch import Tensor

from lightning_lottery._lightning import RoundsLoop
from lightning_lottery.preflight.checks import check_module, check_resume, check_start
from lightning_lottery.preflight.hints import rewinding_hint
from lightning_lottery.preflight.identity import check_same, describe_run
from lightning_lottery.preflight.locate import folder_of, open_folder
from lightning_lottery.pruning import Selection
from lightning_lottery.rules import Settings
from lightning_lottery.storage import RunDescription, RunFolder, RunState


@dataclass(frozen=True)
class FitRequest:
    """What is asked of a fit, as known in ``setup`` and from the checkpoint that Lightning loads.

    Attributes:
        trainer: The description of the Trainer, before other callbacks change its limits.
        state: The state in the checkpoint, if any.
        folder: The run folder, if ``ckpt_path`` names one.
        double_weights: The weights in the checkpoint, if the Trainer's precision is ``"64-true"``.
        ignore: Patterns of names of hyperparameters that may differ from those of the run to resume.
    """

    trainer: dict[str, Any] = field(default_factory=dict)
    state: RunState | None = None
    folder: RunFolder | None = None
    double_weights: dict[str, Tensor] = field(default_factory=dict)
    ignore: Sequence[str] = ()

    @property
    def is_resumed(self) -> bool:
        """Whether a run is resumed."""
        return self.state is not None or self.folder is not None


@dataclass(frozen=True)
class Prepared:
    """Everything that is known when training begins.

    Attributes:
        settings: The arguments.
        loop: The fit loop.
        module: The LightningModule.
        selection: The parameters that are pruned, and those that are not.
        folder: The run folder, locked.
        description: The description of the run. That of a new run still lacks the provenance of its tickets.
    """

    settings: Settings
    loop: RoundsLoop
    module: LightningModule
    selection: Selection
    folder: RunFolder
    description: RunDescription

    def described(self, **changes: Any) -> "Prepared":
        """The same with another description, which is also written to the folder."""
        description = replace(self.description, **changes)
        self.folder.write_description(description)
        return replace(self, description=description)


def prepare(loop: RoundsLoop, module: LightningModule, settings: Settings, request: FitRequest) -> Prepared | None:
    """Checks everything that can be checked before training, and prepares the run. Call it in ``on_fit_start``.

    Args:
        loop: The fit loop.
        module: The LightningModule. It is complete now.
        settings: The arguments.
        request: What is asked of the fit.

    Returns:
        What the run needs; ``None`` if the Trainer has already reached its limits.

    Raises:
        ConfigurationError: The fit cannot work, or the run cannot be resumed.
    """
    trainer, has_nothing_to_train = loop.trainer, loop.progress.nothing_to_train()
    check_resume(trainer, request.is_resumed)
    check_start(trainer, request.is_resumed, has_nothing_to_train)
    if has_nothing_to_train and not request.is_resumed:
        return None
    earlier = _folder_to_resume(loop, settings, request)
    then = None if earlier is None else earlier.description() or RunDescription()
    selection = check_module(module, settings, None if then is None else then.copies)
    if settings.verbose:
        trainer.print(selection.line())
        if not request.is_resumed and (hint := rewinding_hint(module, trainer.optimizers, settings)):
            trainer.print(hint)
    description = describe_run(request.trainer, settings, module, selection)
    if earlier is not None and then is not None:
        check_same(earlier.path, then, description, request.ignore)
    run: str = trainer.strategy.broadcast(uuid.uuid4().hex)  # one id for all processes
    description = replace(description, run=run) if then is None else then
    folder = open_folder(trainer, settings, earlier)
    return Prepared(settings, loop, module, selection, folder, description)


def _folder_to_resume(loop: RoundsLoop, settings: Settings, request: FitRequest) -> RunFolder | None:
    """The folder of the run to resume; ``None`` for a new run."""
    if request.state is None:
        return request.folder
    if request.state.round > 0 and settings.rewind.length is not None:
        loop.allow_epochs(settings.rewind.length[0])
    return folder_of(loop.trainer, request.state, settings)
