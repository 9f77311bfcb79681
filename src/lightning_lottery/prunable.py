"""Which parameters of a network may be pruned."""

import warnings
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized

from lightning_lottery.errors import ConfigurationError
from lightning_lottery.patterns import Layer

PRUNABLE_LAYERS: tuple[type[nn.Module], ...] = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.MultiheadAttention,
    nn.RNNBase,
    nn.RNNCellBase,
)
EMBEDDING_LAYERS = (nn.Embedding, nn.EmbeddingBag)


def refuse_lazy(module: nn.Module) -> None:
    """Refuses a network with lazy layers that have not seen a batch yet.

    Raises:
        ConfigurationError: Some parameters or buffers have no shape yet.
    """
    tensors = [*module.named_parameters(), *module.named_buffers()]
    lazy = [name for name, tensor in tensors if is_lazy(tensor)]
    if lazy:
        raise ConfigurationError(
            f"The lazy layers of {', '.join(map(repr, lazy))} have no weights yet, so there are no initial "
            "values to return to. Send one batch through the network before Trainer.fit, for example in the "
            "constructor of the LightningModule."
        )


def prunable_parameters(
    module: nn.Module, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> dict[str, nn.Parameter]:
    """Lists the parameters that may be pruned.

    By default these are the weights (at least 2 dimensions) of linear, convolution, attention and recurrent
    layers, never biases, normalisation or embeddings. A tied parameter is listed once, under its first
    name, and counts as an embedding if any of its owners is one. Frozen parameters are listed as well.

    Args:
        module: Any network.
        include: Patterns (``*``, ``?``, ``[…]``) of full parameter names to add, whatever their layer.
        exclude: Patterns of full parameter names to leave out, also of those included.

    Returns:
        The parameters by their names in ``state_dict``, in the order of ``named_parameters``.

    Raises:
        ConfigurationError: A pattern matches no parameter, or nothing prunable is left.
    """
    parameters = {name: p for name, p in module.named_parameters() if p.numel()}
    for argument, patterns in (("include", include), ("exclude", exclude)):
        for pattern in patterns:
            if not _matches(parameters, pattern):
                raise ConfigurationError(
                    f"{argument}={pattern!r} matches no parameter. The parameters are: {', '.join(parameters)}."
                )
    parametrized = [
        name
        for name, layer in module.named_modules()
        if isinstance(layer, PRUNABLE_LAYERS) and is_parametrized(layer)
    ]
    if parametrized:
        warnings.warn(
            f"The parametrized weights of {', '.join(map(repr, parametrized))} are not pruned unless their "
            "parameters are named, as in include=['*.parametrizations.weight.original*'].",
            stacklevel=2,
        )
    chosen = _weights_of(module, PRUNABLE_LAYERS) - _weights_of(module, EMBEDDING_LAYERS)
    included = {name for pattern in include for name in _matches(parameters, pattern)}
    excluded = {name for pattern in exclude for name in _matches(parameters, pattern)}
    found = {
        name: parameter
        for name, parameter in parameters.items()
        if (id(parameter) in chosen or name in included) and name not in excluded
    }
    if not found:
        raise ConfigurationError(
            "The network has no prunable parameter: by default these are the weights of linear, convolution, "
            f"attention and recurrent layers. Its parameters are: {', '.join(parameters) or 'none'}. Name "
            "those to prune, for example include=['*.weight']."
        )
    return found


def layers_of(module: nn.Module, parameters: Mapping[str, nn.Parameter]) -> list[Layer]:
    """What patterns and scopes want to know of prunable parameters."""
    owners = {id(p): type(layer) for layer in module.modules() for p in layer.parameters(recurse=False)}
    weights = [p for p in module.parameters() if p.dim() >= 2 and issubclass(owners[id(p)], PRUNABLE_LAYERS)]
    last = weights[-1] if weights else None
    return [Layer(name, tuple(p.shape), owners[id(p)], is_last=p is last) for name, p in parameters.items()]


def _matches(names: dict[str, nn.Parameter], pattern: str) -> list[str]:
    return [name for name in names if fnmatchcase(name, pattern)]


def _weights_of(module: nn.Module, layers: tuple[type[nn.Module], ...]) -> set[int]:
    return {
        id(parameter)
        for layer in module.modules()
        if isinstance(layer, layers)
        for name, parameter in layer.named_parameters(recurse=False)
        # attention's bias_k and bias_v have 3 dimensions; weight_g of weight normalisation is a gain
        if parameter.dim() >= 2 and "bias" not in name and not name.endswith("_g")
    }
