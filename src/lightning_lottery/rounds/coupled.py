"""The coupled channels of a run, for patterns that need them."""

from lightning_lottery._lightning import RoundsFit
from lightning_lottery.channels import Coupling, example_of, find_coupling
from lightning_lottery.preflight import Prepared
from lightning_lottery.storage import CHANNELS, ChannelsState, KeptState


def find_channels(prepared: Prepared, fit: RoundsFit) -> Coupling | None:
    """Finds the channels of the network that depend on each other, if the pattern needs them.

    Args:
        prepared: The run.
        fit: The Trainer, with its data loaded. One batch is read, unless the module has an example of its inputs.

    Returns:
        The channels that can be removed, the same on all processes.

    Raises:
        ConfigurationError: The inputs in a batch are not known, or the network cannot be traced.
    """
    settings, module = prepared.settings, prepared.module
    if not settings.method.pattern.needs_example:
        return None
    with fit.training_data([], seed=0) as data:
        batch = None if module.example_input_array is not None else data.batches(1)[0]
        coupling = find_coupling(module, example_of(module, batch))
    # One result for all processes, since their batches differ.
    shared: Coupling = fit.trainer.strategy.broadcast(coupling)
    return shared.without(dict.fromkeys(prepared.selection.excluded, "is excluded"))


def keep_channels(prepared: Prepared, coupling: Coupling | None) -> None:
    """Writes the channels of a new run to its folder."""
    if coupling is not None:
        KeptState(prepared.folder, CHANNELS, ChannelsState).write(ChannelsState(coupling))


def kept_channels(prepared: Prepared) -> Coupling | None:
    """Reads the channels of a run that is resumed, since its data are not loaded yet.

    Raises:
        LotteryError: The file is missing or damaged.
    """
    if not prepared.settings.method.pattern.needs_example:
        return None
    return KeptState(prepared.folder, CHANNELS, ChannelsState).read().coupling
