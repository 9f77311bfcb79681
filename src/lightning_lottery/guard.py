"""What must hold while a round trains: the right parameters are there, and nothing else moves them."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_lottery.errors import TrainingError
from lightning_lottery.kinds import Kind, kinds_of
from lightning_lottery.notices import warn
from lightning_lottery.sharding import local
from lightning_lottery.validation import replaced


def held_by(optimizers: Iterable[Optimizer]) -> set[int] | None:
    """The ``id`` of every parameter that optimizers hold; ``None`` without optimizers, where nothing tells."""
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    return {id(parameter) for group in groups for parameter in group["params"]} if groups else None


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


def check_followers(
    name: str, parameters: Mapping[str, nn.Parameter], start: Mapping[str, Tensor], optimizers: Iterable[Optimizer]
) -> None:
    """Makes sure that nothing but optimizers moves the parameters to be pruned, in the first epochs of a run.

    Args:
        name: Name of the round.
        parameters: The prunable parameters by name.
        start: Their values when the round began.
        optimizers: The optimizers of the round.

    Raises:
        TrainingError: Some moved that no optimizer holds; all of them are named.
    """
    if (held := held_by(optimizers)) is None:
        return
    loose = {n: p for n, p in parameters.items() if id(p) not in held}
    moved = [n for n, p in loose.items() if not torch.equal(local(p.detach()), local(start[n]).to(p.device))]
    if moved:
        raise TrainingError(
            f"While {name} was training, {moved} changed, and no optimizer holds them: something else writes to "
            "them, as to an average or to a teacher that follows a student. They cannot be pruned. Leave them out "
            f"by exclude={moved}."
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
