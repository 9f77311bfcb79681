"""Classifies parameters: which ones are matrices that the network multiplies by, and what the others are."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils.parametrizations import _SpectralNorm, _WeightNorm
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

_LAYERS = (
    nn.Linear,
    nn.Bilinear,
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
_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
_NORMS = (nn.LayerNorm, nn.GroupNorm, _NormBase)
# Other libraries define their own classes, recognised by their names.
_EMBEDDING_NAME = re.compile(r"Embeddings?$|EmbeddingBag$|Pos(ition(al)?)?(Emb|Enc)")
_NORM_NAME = re.compile(r"Norm([123]d)?$")
# Words in the names of parameters, as in down_proj, rel_pos_h, cls_token, A_log, v_bias. The first match from top
# to bottom decides.
_WORDS = {
    "matrix": {"kernel", "kernels", "proj", "projection", "matrix", "linear"},
    "table": {
        *("pos", "position", "positions", "positional", "emb", "embed", "embeds", "embedding", "embeddings"),
        *("scale", "scales", "zero", "rho", "sigma", "pe", "ape", "wpe", "wte", "rel", "table", "codebook"),
    },
    "weight": {"weight", "weights"},
    "other table": {
        *("token", "tokens", "cls", "bias", "biases", "gamma", "gain", "gains", "temperature", "log", "logit"),
        *("shift", "mean", "std", "query", "queries", "latent", "latents", "slots", "prompt", "prompts"),
    },
}


class Kind(Enum):
    """What a parameter is for. The value describes it in the list of what is left out."""

    MATRIX = "matrices"
    VECTOR = "biases, gains and other vectors"
    EMBEDDING = "embeddings"
    NORM = "normalisation"
    TABLE = "positions, tokens, scales and tables (recognised by name)"
    NUMBERS = "not plain floating-point numbers"
    UNCLEAR = "unclear: an unusual shape, or a parametrization under which zeros may not stay zero"


@dataclass(frozen=True)
class _Place:
    """One use of a parameter in a network. A tied parameter has several.

    Attributes:
        owner: The layer that uses it.
        words: The words of its name.
        shape: Its shape.
        is_transformed: Whether the layer transforms it in a way that may turn zeros into other values.
    """

    owner: nn.Module
    words: frozenset[str]
    shape: tuple[int, ...]
    is_transformed: bool = False

    @property
    def kind(self) -> Kind:
        """What the parameter is for, given that it holds real numbers."""
        axes, is_layer = sum(size > 1 for size in self.shape), isinstance(self.owner, _LAYERS)
        name = "" if is_layer else type(self.owner).__name__
        if isinstance(self.owner, _EMBEDDINGS) or _EMBEDDING_NAME.search(name):
            return Kind.EMBEDDING
        if _is_norm(self.owner):
            return Kind.NORM
        if len(self.shape) < 2 or "bias" in self.words:
            return Kind.TABLE if axes > 1 and not is_layer else Kind.VECTOR
        if self.is_transformed:
            return Kind.UNCLEAR
        use = next((use for use, words in _WORDS.items() if self.words & words), None)
        is_weight = use in ("matrix", "weight")
        if is_weight and (is_layer or len(self.shape) == 2):
            return Kind.MATRIX
        if use is not None and not is_weight:
            return Kind.VECTOR if axes < 2 else Kind.TABLE
        if axes < 2:  # it is broadcast, like (channels, 1, 1); but (64, 1) may be a matrix
            return Kind.UNCLEAR if len(self.shape) == 2 else Kind.VECTOR
        return Kind.MATRIX if is_weight or len(self.shape) == 2 or self.shape[0] > 1 else Kind.UNCLEAR


def kinds_of(module: nn.Module) -> dict[str, Kind]:
    """Classifies every parameter by its layer, its name and its shape.

    A matrix is what a forward pass multiplies by: the weight of a linear, convolution, attention or recurrent
    layer of any class. Embeddings, normalisation, biases, position embeddings, class tokens, tables of relative
    positions and layer scales are not matrices. The gain of weight normalisation is a vector; its direction and
    the weight under spectral normalisation are matrices.

    Args:
        module: Any network.

    Returns:
        The kind of each parameter, by its name in ``named_parameters``. A parameter that is tied to an embedding
        counts as an embedding, wherever else it is used.
    """
    found: dict[int, list[Kind]] = {}
    for parameter, place in _places(module):
        kind = place.kind if has_prunable_type(parameter) else Kind.NUMBERS
        found.setdefault(id(parameter), []).append(kind)
    return {name: _one_of(found[id(parameter)]) for name, parameter in module.named_parameters()}


def has_normalisation(module: nn.Module) -> bool:
    """Whether a network contains a normalisation layer: PyTorch's, or by its name that of another library."""
    return any(_is_norm(layer) for layer in module.modules())


def _is_norm(layer: nn.Module) -> bool:
    if isinstance(layer, (*_LAYERS, _WeightNorm, _SpectralNorm)):  # the latter two normalise weights
        return False
    return isinstance(layer, _NORMS) or _NORM_NAME.search(type(layer).__name__) is not None


def has_prunable_type(tensor: torch.Tensor) -> bool:
    """Whether a tensor contains dense floating-point numbers of at least 16 bits."""
    # Sparse and eight-bit tensors lack the arithmetic that pruning and training need.
    return tensor.is_floating_point() and tensor.element_size() > 1 and tensor.layout == torch.strided


def _one_of(kinds: list[Kind]) -> Kind:
    for kind in (Kind.NUMBERS, Kind.EMBEDDING, Kind.MATRIX):
        if kind in kinds:
            return kind
    return kinds[0]


def _places(module: nn.Module) -> Iterator[tuple[nn.Parameter, _Place]]:
    owners = dict(module.named_modules(remove_duplicate=False))
    for path, layer in owners.items():
        for name, parameter in layer.named_parameters(recurse=False):
            parts, owner, is_transformed = [*path.split("."), name], layer, False
            if isinstance(layer, ParametrizationList):  # <owner>.parametrizations.<attribute>.original0
                owner = owners[".".join(parts[:-3])]
                is_gain = name == "original0" and _is_only(layer, _WeightNorm)
                is_transformed = not _is_only(layer, (_WeightNorm, _SpectralNorm))
                words = frozenset({"gain"}) if is_gain else _words(parts[-2])
            elif isinstance(layer, (nn.ParameterList, nn.ParameterDict)):
                owner = owners[".".join(parts[:-2])] if path else layer
                words = _words("_".join(parts[-2:]))
            elif name.endswith("_g") and name.removesuffix("_g") in _normed_by_hooks(layer):
                words = frozenset({"gain"})
            else:
                words = _words(name)
            yield parameter, _Place(owner, words, tuple(parameter.shape), is_transformed)


def _words(name: str) -> frozenset[str]:
    return frozenset(word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name))


def _is_only(layer: ParametrizationList, kinds: type | tuple[type, ...]) -> bool:
    return len(layer) == 1 and isinstance(layer[0], kinds)


def _normed_by_hooks(layer: nn.Module) -> dict[str, WeightNorm | SpectralNorm]:
    hooks = vars(layer)["_forward_pre_hooks"].values()  # PyTorch has no public method to list them
    return {hook.name: hook for hook in hooks if isinstance(hook, (WeightNorm, SpectralNorm))}


def norms_of(module: nn.Module) -> dict[int, tuple[int, ...]]:
    """Finds the weights that are divided by their own norms. These norms must not become zero.

    These are the directions of weight normalisation (Salimans & Kingma 2016, arXiv:1602.07868) and the weights
    under spectral normalisation (Miyato et al. 2018, arXiv:1802.05957), as hooks and as parametrizations.

    Args:
        module: Any network.

    Returns:
        By ``id`` of the parameter, the dimensions along which there are separate norms: ``(0,)`` if each row has
        its own, ``()`` if the whole weight has one.
    """
    found: dict[int, tuple[int, ...]] = {}
    for layer in module.modules():
        for name, hook in _normed_by_hooks(layer).items():
            if isinstance(hook, WeightNorm):
                found[id(getattr(layer, f"{name}_v"))] = () if hook.dim == -1 else (hook.dim,)
            else:
                found[id(getattr(layer, f"{name}_orig"))] = ()
        for parametrization in layer.parametrizations.values() if is_parametrized(layer) else ():  # type: ignore[operator]
            for part in parametrization:
                if isinstance(part, _WeightNorm):
                    found[id(parametrization.original1)] = () if part.dim == -1 else (part.dim,)
                elif isinstance(part, _SpectralNorm):
                    found[id(parametrization.original)] = ()
    return found


def norms_by_name(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """The result of :func:`norms_of`, by the name of the parameter in ``named_parameters``."""
    norms = norms_of(module)
    return {name: norms[id(p)] for name, p in module.named_parameters() if id(p) in norms}
