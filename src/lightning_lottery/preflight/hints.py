"""Advice from published results, about arguments that are valid but known to lose accuracy."""

from collections.abc import Sequence

from torch import nn
from torch.optim import SGD, Optimizer

from lightning_lottery.literature import published
from lightning_lottery.masks import is_sharded
from lightning_lottery.pruning import has_normalisation
from lightning_lottery.rules import Settings, ToInit

# From this learning rate of SGD on, rewinding to initialisation is known to lose accuracy.
_LARGE_RATE = 0.1
# The size that the hint quotes.
_DENSITY = 0.21


def rewinding_hint(module: nn.Module, optimizers: Sequence[Optimizer], settings: Settings) -> str | None:
    """Advises against rewinding to initialisation where it is known to lose accuracy.

    That is in networks with normalisation layers that are trained by SGD with a large learning rate (Renda,
    Frankle & Carbin 2020, arXiv:2003.02389).

    Args:
        module: The network.
        optimizers: Its optimizers.
        settings: The arguments.

    Returns:
        One line with the published accuracies; ``None`` if the advice does not apply.
    """
    has_no_other_rule = settings.prune_at_init or any(map(is_sharded, module.parameters()))
    # A given ticket may already start from a later point.
    if has_no_other_rule or settings.start is not None or settings.rewind != ToInit():
        return None
    rate = max(map(_largest_rate, optimizers), default=0.0)
    if rate < _LARGE_RATE or not has_normalisation(module):
        return None
    # Epoch 12 of 182 is 6.6 %.
    late, rewound = _accuracy("ToEpoch(12)"), _accuracy("LearningRate()")
    return (
        f"Hint: rewinding to initialisation can lose accuracy in deep networks with normalisation and a large "
        f"learning rate (here {rate:g}). Published test accuracies of ResNet-20 on CIFAR-10 with {_DENSITY:.0%} "
        f"of its weights: {_accuracy('ToInit()')}; with rewind='6.6%', {late}; with rewind=LearningRate(), "
        f"{rewound}; dense, {_accuracy('ToInit()', density=1)} (arXiv:2003.02389)."
    )


def _accuracy(method: str, density: float = _DENSITY) -> str:
    value = published("renda2020", "resnet20", method).at(density)
    assert value is not None, "the package has this number"
    return f"{value.mean:.2%}"


def _largest_rate(optimizer: Optimizer) -> float:
    """The largest learning rate that SGD has or will have, as far as its groups say; 0 for other optimizers."""
    if not isinstance(optimizer, SGD):
        return 0.0
    # Schedulers note in the groups the rate that they start from. OneCycleLR also notes the rate that it rises to,
    # but CyclicLR does not.
    names = ("lr", "initial_lr", "max_lr")
    return max(float(group.get(name, 0)) for group in optimizer.param_groups for name in names)
