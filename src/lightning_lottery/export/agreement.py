"""Whether an exported network computes what the masked network computes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_lottery.channels import largest_difference, outputs_of, with_noise
from lightning_lottery.errors import ConfigurationError, ExportError

# Allowed differences, relative to the largest output, for types of 32 bits or more, and of less. Other orders of
# sums cost a few units in the last place, a mistake costs much more.
_TOLERANCE, _TOLERANCE_IN_HALF = 1e-4, 2e-2


@dataclass(frozen=True)
class Expected:
    """Calls of the masked network with their outputs, in the precision of the network.

    Attributes:
        examples: What networks are called with: the examples, and each with noise in its floating-point tensors,
            so that zeros in an example hide no difference.
        outputs: The outputs of the masked network for each of them.
        tolerance: The largest difference that still agrees, relative to the largest output.
    """

    examples: Sequence[Any]
    outputs: Sequence[Sequence[Tensor]]
    tolerance: float

    @classmethod
    def of(cls, masked: nn.Module, examples: Sequence[Any], others: Sequence[Any] = ()) -> "Expected":
        """Calls the masked network.

        Args:
            masked: The network, in evaluation mode.
            examples: What it is called with, on its device.
            others: Further examples, which count only if the network runs on them.

        Raises:
            ConfigurationError: The network fails on one of the ``examples``.
            ExportError: The outputs contain no finite number.
        """
        calls = [(example, outputs_of(masked, example)) for example in examples]
        for other in (*others, *map(with_noise, examples)):
            try:
                calls.append((other, outputs_of(masked, other)))
            except ConfigurationError:  # the network accepts only certain inputs
                continue
        check_finite(masked, [tensor for _, outputs in calls for tensor in outputs])
        types = {p.dtype for p in masked.parameters() if p.is_floating_point()}
        is_half = any(torch.finfo(dtype).bits < 32 for dtype in types)
        given, outputs = zip(*calls, strict=True)
        return cls(given, outputs, _TOLERANCE_IN_HALF if is_half else _TOLERANCE)

    def difference(self, network: nn.Module) -> float:
        """The largest difference of outputs, relative to the largest output.

        Raises:
            ConfigurationError: The network fails on an example.
        """
        return max(
            largest_difference(outputs_of(network, example), outputs)
            for example, outputs in zip(self.examples, self.outputs, strict=True)
        )

    def agrees(self, network: nn.Module) -> bool:
        """Whether a network runs and has these outputs, up to rounding."""
        try:
            return self.difference(network) <= self.tolerance
        except ConfigurationError:
            return False


def check_finite(network: nn.Module, outputs: Sequence[Tensor]) -> None:
    """Checks that outputs can be compared.

    Raises:
        ExportError: They contain no finite number.
    """
    if not any(bool(tensor.isfinite().any()) for tensor in outputs if tensor.numel()):
        raise ExportError(
            f"The outputs of {type(network).__name__} contain no finite number, so that nothing can be compared."
        )
