"""Notices weights that are not the ticket's: swapped in for a validation, or replaced for good."""

from collections.abc import Callable, Mapping

from torch import nn
from torch.utils.hooks import RemovableHandle

from lightning_lottery.notices import warn
from lightning_lottery.tickets import Masking, is_metric

REWIND_AVERAGE = (
    "Let its state_dict give the average, so that it is rewound, or take Lightning's EMAWeightAveraging."
)


def replaced(module: nn.Module, parameters: Mapping[str, nn.Parameter]) -> list[str]:
    """The names of parameters in whose place a network has others by now, or none."""
    present = dict(module.named_parameters())
    return [name for name, parameter in parameters.items() if present.get(name) is not parameter]


class ValidationWatch:
    """Warns once a round if the weights that are validated are not those of the ticket.

    It looks at the first batch of a validation: before it, when it calls the network (``validation_step`` may swap
    weights by itself), and after it.

    Args:
        name: Name of the round.
        module: The LightningModule.
        parameters: Its prunable parameters by name.
        masking: What keeps the pruned weights at zero.
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
        """Looks before the batch, and gets ready to look while it is validated."""
        self.release()
        self._look()
        if not self._has_warned and self._masking.is_sparse:
            layers = [layer for layer in self._module.children() if not is_metric(layer)]
            self._hooks = [layer.register_forward_pre_hook(self._look_once(n)) for n, layer in enumerate(layers)]

    def after_batch(self) -> None:
        """Looks after the batch."""
        self.release()
        self._look()

    def release(self) -> None:
        """Takes the hooks off the network. May be called twice."""
        for hook in self._hooks:
            hook.remove()

    def _look_once(self, number: int) -> Callable[..., None]:
        def look(*_: object) -> None:
            self._hooks[number].remove()  # already: layers have fast paths for when they have no hooks
            self._look()

        return look

    def _look(self) -> None:
        if self._has_warned or not self._masking.is_sparse:
            return
        others = replaced(self._module, self._parameters)
        moved = self._masking.moved()
        if not others and not moved:
            return
        self._has_warned = True
        name = next(iter(moved), "")
        fault = (
            f"{', '.join(map(repr, others))} are other parameters"
            if others
            else f"pruned ones are not zero in {', '.join(map(repr, moved))} ({moved[name]} in {name!r})"
        )
        metrics = "the metrics are" if self._monitor is None else f"{self._monitor!r} is"
        warn(
            f"{self._name} is validated with other weights than the ticket's: {fault}. Something swaps weights in "
            "for the validation, such as a callback that averages them and goes on with the average of the rounds "
            f"before, so that {metrics} of another network. {REWIND_AVERAGE}",
        )
