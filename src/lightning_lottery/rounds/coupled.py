"""Finds coupled channels in a fit, for patterns that need them."""

from lightning_lottery._lightning import RoundsFit
from lightning_lottery.channels import Coupling, example_of, find_coupling
from lightning_lottery.preflight import Prepared


def coupling_of(prepared: Prepared, fit: RoundsFit) -> Coupling | None:
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
