"""Detects weights that do not belong to the ticket: swapped in for a validation, or replaced."""

from collections.abc import Callable, Mapping

from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import nn
from torch.utils.hooks import RemovableHandle

from lightning_lottery.rounds.checks import replaced
from lightning_lottery.tickets import Masking, is_metric

REWIND_AVERAGE = (
    "Let its state_dict return the average, so that it is rewound, or use Lightning's EMAWeightAveraging."
)


def check_zeros(name: str, masking: Masking) -> None:
    """Warns if pruned weights are not zero at the end of a training, and sets them to zero.

    Args:
        name: Name of the round.
        masking: Its masking.
    """
    if not (moved := masking.nonzero()):
        return
    first, number = next(iter(moved.items()))
    rank_zero_warn(
        f"At the end of {name}, pruned weights were not zero in {', '.join(map(repr, moved))} "
        f"({number} in {first!r}). They are set to zero. Something writes weights in on_train_end, for example "
        f"a callback that averages weights. {REWIND_AVERAGE}",
    )
    masking.mask_weights()


class ValidationWatch:
    """Warns once per round if the validated weights are not those of the ticket.

    It checks at the first batch of a validation: before it, when the network is called (``validation_step`` may
    swap weights itself), and after it.

    Args:
        name: Name of the round.
        module: The LightningModule.
        parameters: The prunable parameters by name.
        masking: The masking of the round.
        monitor: Name of the monitored metric.
    """

    def __init__(
        self,
        name: str,
        module: nn.Module,
        parameters: Mapping[str, nn.Parameter],
        masking: Masking,
        monitor: str | None,
    ) -> None:
        self._name, self._module, self._parameters = name, module, parameters
        self._masking, self._monitor = masking, monitor
        self._hooks: list[RemovableHandle] = []
        self._has_warned = False

    def before_batch(self) -> None:
        """Checks before the batch, and installs hooks to check during the batch."""
        self.release()
        self._check()
        if not self._has_warned and self._masking.is_sparse:
            layers = [layer for layer in self._module.children() if not is_metric(layer)]
            self._hooks = [layer.register_forward_pre_hook(self._check_once(n)) for n, layer in enumerate(layers)]

    def after_batch(self) -> None:
        """Checks after the batch."""
        self.release()
        self._check()

    def release(self) -> None:
        """Removes the hooks. May be called twice."""
        for hook in self._hooks:
            hook.remove()

    def _check_once(self, number: int) -> Callable[..., None]:
        def check(*_: object) -> None:
            self._hooks[number].remove()  # immediately, since some layers have fast paths without hooks
            self._check()

        return check

    def _check(self) -> None:
        if self._has_warned or not self._masking.is_sparse:
            return
        others = replaced(self._module, self._parameters)
        moved = self._masking.nonzero()
        if not others and not moved:
            return
        self._has_warned = True
        name = next(iter(moved), "")
        fault = (
            f"{', '.join(map(repr, others))} were replaced"
            if others
            else f"pruned weights are not zero in {', '.join(map(repr, moved))} ({moved[name]} in {name!r})"
        )
        metrics = "the metrics belong" if self._monitor is None else f"{self._monitor!r} belongs"
        rank_zero_warn(
            f"{self._name} is validated with other weights than the ticket's: {fault}. Something swaps weights "
            f"for the validation, for example a callback that averages weights, so that {metrics} to another "
            f"network. {REWIND_AVERAGE}",
        )
