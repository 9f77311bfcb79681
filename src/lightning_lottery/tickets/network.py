"""What a ticket and a network have in common: named tensors, and whether their names and shapes agree."""

from collections.abc import Collection, Mapping

from torch import Tensor, nn

from lightning_lottery.errors import TicketError
from lightning_lottery.masks import is_sharded
from lightning_lottery.pruning import check_not_lazy, emptied_norms


def check_is_network(module: object) -> None:
    """Checks that an argument is a network whose layers have weights.

    Raises:
        ConfigurationError: Its layers are lazy.
        TicketError: It is not a network.
    """
    if not isinstance(module, nn.Module):
        raise TicketError(f"A network (a torch.nn.Module) is needed, but got {module!r:.200}.")
    check_not_lazy(module)


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """All parameters and persistent buffers of a network, keyed as in ``state_dict``.

    A tied parameter appears once, under its first name.
    """
    saved = module.state_dict().keys()
    tensors: dict[str, Tensor] = dict(module.named_parameters())
    return tensors | {name: buffer for name, buffer in module.named_buffers() if name in saved}


def starting_values(module: nn.Module) -> dict[str, Tensor]:
    """Copies all parameters and persistent buffers of a network, keyed as in ``state_dict``.

    Args:
        module: Any network.

    Returns:
        Detached copies on the CPU, where they take no memory of the training device. Sharded tensors stay sharded.
    """
    tensors = {name: tensor.detach() for name, tensor in tensors_of(module).items()}
    return {n: t.clone() if is_sharded(t) or t.device.type == "cpu" else t.cpu() for n, t in tensors.items()}


def first_names(module: nn.Module) -> dict[str, str]:
    """The first name of each parameter and buffer by all its names, of which tied ones have several."""
    named = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    first: dict[int, str] = {}
    return {name: first.setdefault(id(tensor), name) for name, tensor in named}


def unset_buffers(module: nn.Module) -> dict[str, nn.Module]:
    """The layers whose buffers are ``None`` until the first batch, by the names of the buffers."""
    return {
        f"{path}.{name}" if path else name: layer
        for path, layer in module.named_modules()
        for name, buffer in vars(layer)["_buffers"].items()  # named_buffers() omits them
        if buffer is None
    }


def misfits(masks: Mapping[str, Tensor], weights: Mapping[str, Tensor], module: nn.Module) -> list[str]:
    """Describes where masks and weights do not fit a network.

    Buffers that get their shape in the first batch, such as those of quantisation observers, fit before and after
    it.

    Args:
        masks: The masks of a ticket by name.
        weights: All its weights by name.
        module: The network.

    Returns:
        One description for each kind of fault and for each wrong shape; empty if everything fits.
    """
    targets, parameters = tensors_of(module), dict(module.named_parameters())
    whole = {name: mask for name, mask in masks.items() if not is_sharded(mask) and name in parameters}
    same_shape = {name: mask for name, mask in whole.items() if mask.shape == parameters[name].shape}
    groups = {
        "masked, but not parameters of the network": [n for n in masks if n in targets and n not in parameters],
        "without any weight of a norm that they are divided by": emptied_norms(same_shape, module),
    }
    return differences(weights, targets, "the network", unset_buffers(module)) + _grouped(groups)


def differences(
    weights: Mapping[str, Tensor], others: Mapping[str, Tensor], where: str, may_lack: Collection[str] = ()
) -> list[str]:
    """Describes where the names and shapes of a ticket's weights differ from others.

    Args:
        weights: All weights of the ticket by name.
        others: The tensors to compare them with, by name.
        where: What these belong to.
        may_lack: Names that they need not have.

    Returns:
        One description for each kind of fault and for each wrong shape; empty if all agree.
    """
    groups = {
        f"only {where} has": [name for name in others if name not in weights],
        "only the ticket has": [name for name in weights if name not in others and name not in may_lack],
    }
    return _grouped(groups) + [
        f"{name!r} has shape {tuple(other.shape)} in {where} and {tuple(weights[name].shape)} in the ticket"
        for name, other in others.items()
        if name in weights and other.shape != weights[name].shape and not _may_grow(other, weights[name])
    ]


def _grouped(groups: Mapping[str, list[str]]) -> list[str]:
    return [f"{what}: {', '.join(map(repr, names))}" for what, names in groups.items() if names]


def _may_grow(target: Tensor, value: Tensor) -> bool:
    """Whether a buffer may get its final shape in the first batch, so that the shapes may differ."""
    return not isinstance(target, nn.Parameter) and min(target.numel(), value.numel()) <= 1
