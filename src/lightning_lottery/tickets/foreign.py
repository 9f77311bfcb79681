"""Masks from elsewhere: zeros in a network or state dict, masks of torch.nn.utils.prune, dictionaries of masks."""

from collections.abc import Container, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_lottery.errors import TicketError
from lightning_lottery.masks import Masks
from lightning_lottery.pruning import check_and_select, has_prunable_type, names_matching
from lightning_lottery.tickets.network import check_is_network, first_names
from lightning_lottery.tickets.state_dict import Weights, entries_of, first_names_in, tensors_in


def masks_of_zeros(module: nn.Module, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> Masks:
    """The masks of the exact zeros in a network.

    Args:
        module: The network.
        include: Patterns of names of parameters that are prunable, in addition to matrices and kernels.
        exclude: Patterns of names of parameters that are not.

    Raises:
        ConfigurationError: A pattern matches nothing, or the network has nothing prunable.
        TicketError: All weights of a layer are zero.
    """
    check_is_network(module)
    selection = check_and_select(module, include, exclude, is_initial=False)
    masks = {name: _nonzero(parameter) for name, parameter in selection.parameters.items()}
    _check_not_empty(masks)
    return masks


def check_masks(masks: Mapping[str, Tensor], module: nn.Module) -> Masks:
    """Checks that masks fit a network, and copies them.

    Args:
        masks: Boolean tensors by the names of parameters or layers. The second name of a tied parameter is fine.
        module: The network.

    Returns:
        The masks on the CPU, under the first names of the parameters.

    Raises:
        TicketError: A mask is not boolean, is not for a parameter, has another shape, or keeps nothing.
    """
    check_is_network(module)
    if not isinstance(masks, Mapping) or not masks:
        raise TicketError(f"Pass a dictionary of masks by the names of parameters, but got {masks!r:.200}.")
    first = first_names(module)
    parameters = dict(module.named_parameters(remove_duplicate=False))
    masks = {_known(name, parameters) if isinstance(name, str) else name: mask for name, mask in masks.items()}
    faults = [fault for name, mask in masks.items() if (fault := _fault(name, mask, parameters.get(name)))]
    if faults:
        raise TicketError(f"The masks do not fit the network: {'; '.join(faults)}.")
    made: Masks = {}
    for name, mask in masks.items():
        copied = mask.detach().cpu().clone()
        if not torch.equal(made.setdefault(first[name], copied), copied):
            raise TicketError(f"{name!r} is tied to {first[name]!r}, but its mask is another one.")
    _check_not_empty(made)
    return made


def _fault(name: str, mask: object, parameter: Tensor | None) -> str | None:
    """Describes what is wrong with a mask; ``None`` if nothing is."""
    if parameter is None:
        return f"{name!r} is not a parameter of the network"
    if not isinstance(mask, Tensor):
        return f"the mask of {name!r} is {type(mask).__name__}, which is not a tensor"
    if mask.dtype != torch.bool:
        return f"the mask of {name!r} is {mask.dtype}, which is not boolean; write mask.bool()"
    if mask.shape != parameter.shape:
        shapes = f"{tuple(parameter.shape)} in the network and {tuple(mask.shape)} among the masks"
        return f"{name!r} has shape {shapes}"
    return None


def masks_in_state_dict(
    state_dict: Mapping[str, Any],
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    masks: Mapping[str, Any] | None = None,
) -> tuple[Masks, Weights]:
    """Finds the masks in a state dict: pairs of ``*_orig`` and ``*_mask``; without any, the exact zeros.

    Args:
        state_dict: A state dict, or a checkpoint of Lightning with one.
        include: Patterns of names of tensors that are prunable, as they are without masks.
        exclude: Patterns of names of tensors that are not.
        masks: The masks, if they are not in the state dict.

    Returns:
        The masks and all weights, on the CPU, under the names that the network has without masks.

    Raises:
        ConfigurationError: A pattern matches nothing.
        TicketError: A key does not fit; the message names all of them.
    """
    tensors = tensors_in(state_dict)
    pairs, weights = _from_pairs(tensors)
    first = {**first_names_in(state_dict), **{name: name for name in weights}}
    pairs |= {} if masks is None else _by_name(masks, first, weights)
    included, excluded = names_matching(weights, include, "include"), names_matching(weights, exclude, "exclude")
    found = {}
    for name, tensor in weights.items():
        if name not in excluded and (name in pairs or name in included or (not pairs and _is_matrix(tensor))):
            found[name] = pairs[name] if name in pairs else _nonzero(tensor)
    if not found:
        raise TicketError(
            "The state dict contains nothing prunable: no floating-point tensor of two or more dimensions. Its "
            f"keys are {', '.join(tensors)}. Name others in include=['…']."
        )
    _check_not_empty(found)
    return found, weights


def _by_name(masks: Mapping[str, Any], first: Mapping[str, str], weights: Weights) -> Masks:
    """Masks from a file or dictionary, under the first names of the weights that they are for."""
    made: Masks = {}
    faults = []
    for given, mask in entries_of(masks).items():
        name = first.get(_known(str(given), first), "")
        if name not in weights:
            faults.append(f"{given!r} is not among the weights")
        elif not isinstance(mask, Tensor):
            faults.append(f"the mask of {name!r} is {type(mask).__name__}, which is not a tensor")
        elif mask.shape != weights[name].shape:
            faults.append(f"the mask of {name!r} has shape {tuple(mask.shape)}, not {tuple(weights[name].shape)}")
        else:
            mask = mask.detach().cpu().to_dense()
            if not bool(((mask == 0) | (mask == 1)).all()):
                faults.append(f"the mask of {name!r} has other values than 0 and 1")
            elif not torch.equal(made.setdefault(name, mask.bool()), mask.bool()):
                faults.append(f"{name!r} has two different masks")
    if faults:
        raise TicketError(
            f"The masks do not fit: {'; '.join(faults)}. The weights are {', '.join(weights)}. A checkpoint with "
            "masks or zeros is not a file of masks: pass it in place of the weights."
        )
    return made


def _known(given: str, names: Container[str]) -> str:
    """The name of a weight, given this name or that of its layer or mask."""
    candidates = (given, given.removesuffix("_mask"), f"{given}.weight")
    return next((name for name in candidates if name in names), given)


def _from_pairs(tensors: Weights) -> tuple[Masks, Weights]:
    """Masks of ``torch.nn.utils.prune``, and all weights under their names without masks."""
    masks, weights, faults = {}, dict(tensors), []
    for name in _originals(tensors):
        original, mask = tensors[f"{name}_orig"], tensors.get(f"{name}_mask")
        if mask is None:
            faults.append(f"{name + '_orig'!r} has no {name + '_mask'!r}")
        elif mask.shape != original.shape:
            faults.append(
                f"{name + '_mask'!r} has shape {tuple(mask.shape)} and {name + '_orig'!r} {tuple(original.shape)}"
            )
        elif not bool(((mask == 0) | (mask == 1)).all()):
            faults.append(f"{name + '_mask'!r} has other values than 0 and 1")
        elif name in tensors:
            faults.append(f"{name!r} is there beside {name + '_orig'!r}")
        else:
            masks[name] = mask.bool()
            weights[name] = weights.pop(f"{name}_orig")
            del weights[f"{name}_mask"]
    for key in [key for key in weights if key.endswith("_mask")]:
        # Other masks, such as those of attention, have no weight of their name and shape.
        name = key.removesuffix("_mask")
        same = name in weights and weights[name].shape == weights[key].shape
        if same or (masks and key.endswith(("weight_mask", "bias_mask"))):
            faults.append(f"{key!r} has no {name + '_orig'!r}")
    if faults:
        raise TicketError(f"The masks of torch.nn.utils.prune do not fit: {'; '.join(faults)}.")
    return masks, weights


def _originals(tensors: Weights) -> list[str]:
    """The names of weights that are stored as ``*_orig``; spectral_norm also stores ``*_u`` and is not a mask."""
    found = [key.removesuffix("_orig") for key in tensors if key.endswith("_orig")]
    return [name for name in found if f"{name}_u" not in tensors]


def _is_matrix(tensor: Tensor) -> bool:
    return not tensor.is_nested and tensor.dim() >= 2 and has_prunable_type(tensor)


def _nonzero(tensor: Tensor) -> Tensor:
    return tensor.detach().ne(0).cpu().contiguous()


def _check_not_empty(masks: Masks) -> None:
    """Checks that every layer keeps a weight, since a layer without any passes nothing on."""
    if empty := [name for name, mask in masks.items() if not bool(mask.any())]:
        raise TicketError(
            f"The masks keep no weight of {', '.join(map(repr, empty))}: all of them are zero, so that nothing "
            "passes these layers. If they only start at zero, as in adapters, leave out their masks, for example "
            f"with exclude={empty}."
        )
