"""The trained state of the last ticket, which the module has again after the controls."""

from torch import nn

from lightning_lottery._lightning import RoundsFit
from lightning_lottery.masks import is_sharded
from lightning_lottery.storage import LAST_TICKET, KeptState, RunFolder, TrainedState
from lightning_lottery.tickets import ModuleState, Ticket, starting_values


class LastTicket:
    """Saves the state after the training of the last ticket, and restores it after the controls.

    Args:
        fit: The Trainer.
        module: The network.
        folder: The run folder. If a run is resumed, the state may be there.
    """

    def __init__(self, fit: RoundsFit, module: nn.Module, folder: RunFolder) -> None:
        self._fit, self._module = fit, module
        self._state = KeptState(folder, LAST_TICKET, TrainedState)

    def save(self) -> None:
        """Saves the current state, in the run folder."""
        if any(map(is_sharded, self._module.parameters())):
            return  # sharded runs have no controls and cannot be resumed
        weights, module = starting_values(self._module), ModuleState.of(self._module)
        self._state.write(TrainedState(weights, module, self._fit.end()))

    def restore(self) -> None:
        """Restores the saved state, if any."""
        if self._state.exists():
            state = self._state.read()
            state.module.restore(self._module)
            Ticket(masks={}, weights=state.weights).apply(self._module)
            self._fit.restore_end(state.trainer)
