"""The trained state of the last ticket, which the module has again after the controls."""

from typing import Any

from torch import nn

from lightning_lottery._lightning import RoundsFit
from lightning_lottery.masks import sharding
from lightning_lottery.storage import LAST, RunFolder
from lightning_lottery.tickets import ModuleState, Ticket, starting_values


class LastTicket:
    """Saves the state after the training of the last ticket, and restores it after the controls.

    Args:
        fit: The Trainer.
        module: The network.
        folder: The run folder, so that a resumed run can restore the state too.
    """

    def __init__(self, fit: RoundsFit, module: nn.Module, folder: RunFolder) -> None:
        self._fit, self._module, self._folder = fit, module, folder
        self._state: dict[str, Any] | None = None

    def save(self) -> None:
        """Saves the current state, in memory and in the run folder."""
        if any(map(sharding.is_sharded, self._module.parameters())):
            return  # sharded runs have no controls and cannot be resumed
        self._state = {
            "weights": starting_values(self._module),
            "module": vars(ModuleState.of(self._module)),
            "trainer": self._fit.keep_final(),
        }
        self._folder.write_state(LAST, self._state)

    def read(self) -> None:
        """Reads the state that an earlier process has saved, if any."""
        if self._folder.has_state(LAST):
            self._state = self._folder.read_state(LAST)

    def restore(self) -> None:
        """Restores the saved state, if any."""
        if self._state is not None:
            ModuleState(**self._state["module"]).restore(self._module)
            Ticket(masks={}, weights=self._state["weights"]).apply(self._module)
            self._fit.restore_final(self._state["trainer"])
