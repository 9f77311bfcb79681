"""The floating-point operations of one training batch."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class BatchFlops:
    """The operations of the forward and backward pass of one batch, in matrix products and convolutions.

    Attributes:
        total: All of them, with dense weights, over all processes; 0 if unknown.
        by_parameter: Those of each prunable parameter, by name.
    """

    total: int = 0
    by_parameter: Mapping[str, int] = field(default_factory=dict)

    def sparse(self, densities: Mapping[str, float]) -> float:
        """The operations without those of pruned weights.

        Args:
            densities: The density of each masked parameter by name, in [0, 1].
        """
        pruned = (self.by_parameter.get(name, 0) * (1 - density) for name, density in densities.items())
        return self.total - sum(pruned)
