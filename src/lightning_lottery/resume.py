"""What a checkpoint holds of a run, and whether a run may go on."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from torch import nn

from lightning_lottery.description import alike
from lightning_lottery.errors import ConfigurationError
from lightning_lottery.folder import RunFolder
from lightning_lottery.module_state import ModuleState
from lightning_lottery.records import TICKET_BRANCH, round_name

LAST = "last.pt"  # the last ticket, trained


@dataclass(frozen=True)
class RunState:
    """The callback's state in a checkpoint: plain values and tensors, so that it loads with ``weights_only=True``.

    The masks, the starting weights and the records are in the run folder; a checkpoint is of no use without it.

    Attributes:
        run: The identity of the run, as in its ``lottery.json``.
        folder: The run folder.
        round: The round that was training.
        branch: Its branch.
        masks_hash: Fingerprint of its masks.
        best_value: Best value of the monitored metric in the round so far.
        best_step: The step at that value.
        seconds: How long the round had trained.
        masks_seen: What its pruning would have given after the last epochs, packed to bits.
        is_cut_short: Whether a stop rule has ended it.
        module: What Lightning's checkpoint lacks of the network (see ``ModuleState``).
        moment: What it lacks of the training: the generators of every process at the beginning of the epoch and
            now, metrics, gradients between steps (see ``RoundsFit.moment``). Empty between two rounds.
        without_gradient: The parameters that had had no gradient in the round so far.
    """

    run: str
    folder: str
    round: int
    branch: str
    masks_hash: str
    best_value: float | None
    best_step: int | None
    seconds: float
    masks_seen: list[dict[str, Any]]
    is_cut_short: bool
    module: dict[str, Any]
    moment: dict[str, Any]
    without_gradient: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, values: dict[str, Any]) -> "RunState":
        """Reads what ``vars`` gave.

        Raises:
            ConfigurationError: Another version has written it.
        """
        try:
            return cls(**values)
        except TypeError as error:
            raise ConfigurationError(
                f"Another version of lightning-lottery has written the checkpoint ({error}). Go on by it; "
                "or call lottery.resume(trainer) and fit without ckpt_path, from the start of a round."
            ) from error

    @property
    def name(self) -> str:
        """The name of the round."""
        return round_name(self.round, self.branch)

    def reason_to_begin_again(self, module: nn.Module, goes_on_within_rounds: bool) -> str | None:
        """Why the round cannot go on where the checkpoint was taken; ``None`` if it can."""
        if not goes_on_within_rounds:
            return "averages of weights cannot go on from a checkpoint"
        added = ModuleState(**self.module).missing_layers(module)
        return f"the layers {added} were added while it trained, and are missing" if added else None


def check_same(folder: RunFolder, description: dict[str, Any], ignore: Sequence[str] = ()) -> None:
    """Refuses to go on with a run that was begun otherwise.

    Args:
        folder: The run folder.
        description: What the run would be if it were begun now.
        ignore: Patterns of names of hyperparameters that may differ.

    Raises:
        ConfigurationError: Arguments, Trainer or network differ, with what differs.
    """
    then, now = folder.description(), json.loads(json.dumps(description))
    differences = []
    for part in ("arguments", "trainer", "prunable", "hyperparameters"):
        old, new = then.get(part, {}), now[part]
        changed = [name for name in {**old, **new} if not alike(old.get(name), new.get(name))]
        if part == "hyperparameters":
            changed = [name for name in changed if not any(fnmatchcase(name, pattern) for pattern in ignore)]
            free = changed
        differences += [f"{name} was {old.get(name)!r} and is {new.get(name)!r}" for name in changed]
    if not differences and then.get("structure") != now["structure"]:
        differences.append("the network has other parameters or buffers")
    if differences:
        raise ConfigurationError(
            f"The run in {str(folder.path)!r} cannot go on, since {'; '.join(differences)}. Write what it was "
            "begun with, or begin another run without ckpt_path and in another folder."
            + (f" If {free} may differ, call lottery.resume(trainer, ignore={free}) first." if free else "")
        )


def first_unfinished(folder: RunFolder, plan: list[tuple[int, str]]) -> int:
    """The round at which a run goes on if there is no checkpoint of it.

    Args:
        folder: The run folder.
        plan: Round and branch of everything to train, in this order.

    Returns:
        The index in the plan; its length if all is done. A round is done if it is recorded and what is made of its
        trained weights is there: the next ticket, or after the last ticket these weights themselves.
    """
    recorded = {(record.round, record.branch) for record in folder.read_records()}
    last = max(number for number, branch in plan if branch == TICKET_BRANCH)
    for index, (number, branch) in enumerate(plan):
        made_of_it = folder.ticket_path(number + 1) if number < last else folder.path / LAST
        if (number, branch) not in recorded or (branch == TICKET_BRANCH and not made_of_it.exists()):
            return index
    return len(plan)


def place_of(state: RunState | None, plan: list[tuple[int, str]], unfinished: int) -> tuple[RunState | None, int]:
    """Where in its plan a run goes on that has loaded a checkpoint.

    Args:
        state: What the checkpoint held; ``None`` without one.
        plan: Round and branch of everything to train, in this order.
        unfinished: The index of the first unfinished round.

    Returns:
        The state, or ``None`` if it is from between two rounds or of a round that is finished; and the index.
    """
    if state is None or not state.moment:
        return None, unfinished
    at = plan.index((state.round, state.branch))
    return (state, at) if at >= unfinished else (None, unfinished)


def next_checkpoint(folder: RunFolder, plan: list[tuple[int, str]]) -> str | None:
    """The newest checkpoint of the round that was training; ``None`` if there is none, or if all is done."""
    unfinished = first_unfinished(folder, plan)
    return None if unfinished == len(plan) else folder.newest_checkpoint(round_name(*plan[unfinished]))


def newest_run(folders: list[Path], dirpath: Path | None, wanted: dict[str, Any]) -> RunFolder | None:
    """The newest of some run folders, if there is any.

    Args:
        folders: Where to look.
        dirpath: The folder that the user names, if he does. A run that was begun otherwise is then found as well:
            going on with it is refused later, with what differs. Else such a run is another experiment.
        wanted: What the run would be if it were begun now, as far as it is known.
    """
    found = [folder for path in folders if (folder := RunFolder(path)).description()]
    found.sort(key=lambda folder: (folder.path / "lottery.json").stat().st_mtime)
    if dirpath is None:
        wanted = json.loads(json.dumps(wanted))
        found = [
            f for f in found if all(alike(f.description().get(name), value) for name, value in wanted.items())
        ]
    return found[-1] if found else None
