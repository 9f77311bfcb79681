"""What must hold while a round trains: the right parameters are there, and something trains them."""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from lightning_lottery.errors import TrainingError
from lightning_lottery.masks import local
from lightning_lottery.notices import warn
from lightning_lottery.pruning import Kind, kinds_of
from lightning_lottery.rounds.swapped_weights import replaced
from lightning_lottery.rules import Rewind


def check_parameters(name: str, module: nn.Module, parameters: Mapping[str, nn.Parameter]) -> None:
    """Makes sure that a network still has the parameters that are pruned.

    Raises:
        TrainingError: Some were replaced or removed, so that the masks are of tensors that nothing uses.
    """
    if gone := replaced(module, parameters):
        raise TrainingError(
            f"While {name} was training, something replaced or removed {gone}, which are to be "
            "pruned. Their masks are of the old ones. Change the network before fit, change values in place "
            f"(parameter.data.copy_), or leave such parameters out by exclude={gone}."
        )


def check_left(name: str, followers: Collection[str], parameters: Collection[str]) -> None:
    """Makes sure that something is left to prune.

    Raises:
        TrainingError: All parameters to be pruned follow something.
    """
    if len(followers) == len(parameters):
        raise TrainingError(
            f"While {name} was training, all weights to be pruned changed without ever having a gradient, so that "
            "something else than an optimizer writes to them. They cannot be pruned."
        )


def check_steps(rule: Rewind, module: nn.Module, start: Mapping[str, Tensor]) -> None:
    """Makes sure that a rewind point in steps can be reached, where Lightning has counted none in an epoch.

    Raises:
        TrainingError: Weights have moved, so that steps go past Lightning.
    """
    if has_moved(module, start):
        raise TrainingError(
            f"The rewind point of {rule!r} is counted in steps, and Lightning does not count those of optimizers "
            "that self.optimizers(use_pl_optimizer=False) gives. Step the ones of self.optimizers(), or write a "
            "point in epochs, as rewind='2 epochs'."
        )


def check_unseen(name: str, has_seen_batches: bool) -> None:
    """Makes sure that a round without a step has not seen data either.

    Raises:
        TrainingError: It has.
    """
    if has_seen_batches:
        raise TrainingError(
            f"{name} has seen batches, but Lightning has counted no step of an optimizer, and no weight has "
            "changed. In manual optimization, step the optimizers that self.optimizers() gives."
        )


def has_moved(module: nn.Module, start: Mapping[str, Tensor]) -> bool:
    """Whether any parameter has another value than when the round began."""
    pairs = ((local(p.detach()), local(start[n]).to(p.device)) for n, p in module.named_parameters() if n in start)
    return not all(now.shape == then.shape and torch.equal(now, then) for now, then in pairs)


def warn_if_added(name: str, module: nn.Module, known: Mapping[str, Tensor]) -> None:
    """Says which matrices were added while a round trained, since they are not pruned.

    Args:
        name: Name of the round.
        module: The network.
        known: What it held when the round began, by name.
    """
    added = [n for n, kind in kinds_of(module).items() if kind is Kind.MATRIX and n not in known]
    if added:
        warn(
            f"While {name} was training, {added} were added to the network. They are not pruned, and the next "
            "round begins without them. Make them before fit, in the constructor or in configure_model."
        )
