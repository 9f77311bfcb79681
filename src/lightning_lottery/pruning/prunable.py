"""Decides which parameters of a network are pruned."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import nn
from torch.nn.parameter import is_lazy

from lightning_lottery.errors import ConfigurationError
from lightning_lottery.masks import is_sharded
from lightning_lottery.plain import check_list, first_of
from lightning_lottery.pruning.copies import averages_of
from lightning_lottery.pruning.kinds import Kind, kinds_of

# The special value of exclude, and reasons for leaving parameters out.
FROZEN = "frozen"
EXCLUDED = "excluded"
COPIED = "copies of trained weights"


@dataclass(frozen=True)
class Selection:
    """The parameters of a network that are pruned, and those that are not.

    Attributes:
        parameters: The prunable parameters by name, in the order of ``named_parameters``.
        left_out: All other parameters by name, each with the reason.
        copies: For each copy of a trained weight, the name of its original.
        sizes: The number of weights in every parameter, by name.
    """

    parameters: dict[str, nn.Parameter]
    left_out: dict[str, str]
    copies: dict[str, str | None]
    sizes: dict[str, int]

    @property
    def weights(self) -> int:
        """The number of prunable weights."""
        return sum(self.sizes[name] for name in self.parameters)

    def by_reason(self) -> dict[str, list[str]]:
        """The names of the parameters left out by reason, the largest group first."""
        found: dict[str, list[str]] = {}
        for name, reason in self.left_out.items():
            found.setdefault(reason, []).append(name)
        return dict(sorted(found.items(), key=lambda item: -sum(self.sizes[name] for name in item[1])))

    @property
    def excluded(self) -> list[str]:
        """The names of the parameters that the user excluded."""
        return [name for name, reason in self.left_out.items() if reason in (EXCLUDED, FROZEN)]

    @property
    def unclear(self) -> list[str]:
        """The names of the parameters left out that may be matrices."""
        return [name for name, reason in self.left_out.items() if reason == Kind.UNCLEAR.value]

    def line(self) -> str:
        """One line about what is pruned and what is not."""
        total = sum(self.sizes.values())
        parts = [f"{reason} {self._counted(names)}" for reason, names in self.by_reason().items()]
        matrices = "matrix" if len(self.parameters) == 1 else "matrices"
        frozen = [name for name, parameter in self.parameters.items() if not parameter.requires_grad]
        return (
            f"Pruning {self.weights:,} weights of {len(self.parameters)} {matrices}, "
            f"{self.weights / total:.1%} of {total:,} parameters."
            + (f" Left out: {'; '.join(parts)}." if parts else " Nothing is left out.")
            + (f" Frozen weights are pruned too: {self._counted(frozen)}." if frozen else "")
            + (f" exclude=['{FROZEN}'] leaves them alone." if frozen else "")
        )

    def _counted(self, names: Sequence[str]) -> str:
        shown = ", ".join(names[:2]) + (", …" if len(names) > 2 else "")
        return f"{sum(self.sizes[name] for name in names):,} ({shown})"


def check_not_lazy(module: nn.Module) -> None:
    """Checks that no layer is still lazy.

    Raises:
        ConfigurationError: A parameter or buffer has no shape yet, since its layer has not seen a batch.
    """
    tensors = [*module.named_parameters(), *module.named_buffers()]
    lazy = [name for name, tensor in tensors if is_lazy(tensor)]
    if lazy:
        raise ConfigurationError(
            f"The lazy layers of {', '.join(map(repr, lazy))} have no weights yet. Send one batch "
            "through the network first, for example in the constructor of the LightningModule."
        )


def check_not_pruned(module: nn.Module) -> None:
    """Checks that nothing else prunes the network. Its masks would be ignored, and its zeros counted as kept.

    Raises:
        ConfigurationError: Some layers have masks from ``torch.nn.utils.prune`` or ``torch.ao.pruning``.
    """
    pruned = dict.fromkeys(_pruned(module))
    if pruned:
        first = next(iter(pruned))
        path, _, attribute = first.rpartition(".")
        layer = f"model.get_submodule({path!r})"
        raise ConfigurationError(
            f"The network is already pruned. PyTorch's own pruning has put masks on {_some(list(pruned))}, and "
            "the weights they remove would count as survivors. Make the masks permanent before fit, for example "
            f"with torch.nn.utils.prune.remove({layer}, {attribute!r}), or start with a network that is not "
            "pruned. Ticket.from_state_dict(model.state_dict()) makes a ticket of masks of torch.nn.utils.prune."
        )


def _pruned(module: nn.Module) -> Iterator[str]:
    for path, layer in module.named_modules():
        prefix = f"{path}." if path else ""
        own = dict(layer.named_parameters(recurse=False))
        masks = [name.removesuffix("_mask") for name, _ in layer.named_buffers(recurse=False)]
        yield from (f"{prefix}{name}" for name in masks if f"{name}_orig" in own)
        # torch.ao.pruning keeps its mask in <layer>.parametrizations.<attribute>.0
        if type(layer).__name__ == "FakeSparsity":
            yield path.replace("parametrizations.", "").rpartition(".")[0]


def warn_if_sparse(module: nn.Module, parameters: Mapping[str, nn.Parameter]) -> None:
    """Warns if the network is sparse before training, for example because it is fitted a second time.

    Parameters that are entirely zero, as in adapters, are regular initial values and do not count.
    """
    if any(map(is_sharded, module.parameters())):
        return
    zeros = {name: p.numel() - int(p.detach().count_nonzero()) for name, p in parameters.items()}
    sparse = {name: count for name, count in zeros.items() if 0 < count < parameters[name].numel()}
    share = sum(sparse.values()) / sum(p.numel() for p in parameters.values())
    if share >= 0.01:
        worst = max(sparse, key=lambda name: sparse[name])
        rank_zero_warn(
            f"{share:.1%} of the prunable weights are exactly zero before any training (most of them in "
            f"{worst!r}), as after an earlier fit of this model. The first round is then not dense, although its "
            "density is reported as 1. To start from a dense network, create a new model; to prune on from these "
            "zeros, write LotteryTicketCallback(..., start=Ticket.from_model(model)).",
        )


def select(
    module: nn.Module,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    copies: Mapping[str, str | None] | None = None,
) -> Selection:
    """Finds the parameters to prune, and the reasons why others are left out.

    By default these are the matrices and kernels that a forward pass multiplies by, in layers of any class (see
    :func:`lightning_lottery.pruning.kinds.kinds_of`). A tied parameter is listed once, under its first name.
    Frozen parameters are pruned unless ``exclude`` contains ``"frozen"``; the content of an ``AveragedModel`` is
    not.

    Args:
        module: Any network.
        include: Patterns (``*``, ``?``, ``[…]``) of full parameter names to add, whatever their layer.
        exclude: Patterns of full parameter names to leave out; they take precedence over ``include``. ``"frozen"``
            leaves out parameters that do not require gradients.
        copies: The known copies of trained weights; by default the content of every ``AveragedModel``.

    Raises:
        ConfigurationError: A pattern matches no parameter, nothing prunable is left, or an included parameter
            cannot be pruned.
    """
    parameters = dict(module.named_parameters())
    present = {name: p for name, p in parameters.items() if p.numel()}
    kinds = kinds_of(module)
    check_list("exclude", exclude, "exclude=['*.head.weight']")
    included = names_matching(present, include, "include")
    excluded = names_matching(present, [pattern for pattern in exclude if pattern != FROZEN], "exclude")
    found_copies = averages_of(module) if copies is None else copies
    followers = {copy: original for copy, original in found_copies.items() if copy not in included | excluded}
    frozen = {name for name, p in present.items() if FROZEN in exclude and not p.requires_grad} - excluded
    found: dict[str, nn.Parameter] = {}
    left_out: dict[str, str] = {}
    for name, parameter in present.items():
        if name in excluded:
            left_out[name] = EXCLUDED
        elif name in frozen:
            left_out[name] = FROZEN
        elif name in followers and kinds[name] is Kind.MATRIX:
            left_out[name] = COPIED
        elif kinds[name] is Kind.MATRIX or name in included:
            found[name] = parameter
        else:
            left_out[name] = kinds[name].value
    unreal = [name for name in found if kinds[name] is Kind.NUMBERS]
    if unreal:
        raise ConfigurationError(
            f"include={list(include)} names {_some(unreal)} of type {found[unreal[0]].dtype}, but only "
            "dense floating-point weights of at least 16 bits can be pruned. Remove them from include."
        )
    selection = Selection(found, left_out, followers, {name: p.numel() for name, p in parameters.items()})
    if not found:
        raise ConfigurationError(_nothing(selection, kinds, excluded | frozen))
    return selection


def _nothing(selection: Selection, kinds: Mapping[str, Kind], excluded: set[str]) -> str:
    message = (
        "The network has no prunable parameter. Only the matrices and kernels that a forward pass multiplies by "
        f"are prunable. The parameters of the network are: {', '.join(selection.left_out) or 'none'}. "
    )
    matrices = [name for name in excluded if kinds[name] is Kind.MATRIX]
    if matrices:
        return message + f"exclude leaves out {_some(matrices)}. Remove these patterns from exclude."
    if selection.unclear:
        return message + f"To prune those that may be matrices, write include={selection.unclear}."
    return message + "To prune other parameters, name them in include=['…'], if zeros make sense there."


def check_and_select(
    module: nn.Module,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    *,
    is_initial: bool = True,
    copies: Mapping[str, str | None] | None = None,
) -> Selection:
    """Checks that a network can be trained and pruned, and calls :func:`select`.

    Args:
        module: Any network.
        include: See :func:`select`.
        exclude: See :func:`select`.
        is_initial: Whether the weights are untrained. Then a warning is shown if many of them are zero.
        copies: See :func:`select`.

    Raises:
        ConfigurationError: The network has lazy layers, something else prunes it, or ``select`` raises an error.
    """
    check_not_lazy(module)
    check_not_pruned(module)
    selection = select(module, include, exclude, copies)
    warn_if_unclear(selection)
    if is_initial:
        warn_if_sparse(module, selection.parameters)
    return selection


def warn_if_unclear(selection: Selection) -> None:
    """Warns about parameters left out that the user may want to prune."""
    if names := selection.unclear:
        rank_zero_warn(
            f"Not pruned: {_some(names)} ({Kind.UNCLEAR.value}). If the network multiplies by them and zeros "
            f"stay zero, write include={names}. To silence this warning, write exclude={names}.",
        )


def names_matching(names: Iterable[str], patterns: Sequence[str], argument: str) -> set[str]:
    """Finds the names that match any of some patterns.

    Args:
        names: The names of parameters, or of other tensors in a state dict.
        patterns: The patterns.
        argument: The name of the argument that contains them, for error messages.

    Raises:
        ConfigurationError: The patterns are not a list, or one of them matches nothing.
    """
    check_list(argument, patterns, f"{argument}=['*.head.weight']")
    names, found = list(names), set()
    for pattern in patterns:
        matching = {name for name in names if fnmatchcase(name, pattern)}
        if not matching:
            raise ConfigurationError(
                f"{argument}={pattern!r} matches no parameter. The parameters are: {', '.join(names)}."
            )
        found |= matching
    return found


def _some(names: Sequence[str]) -> str:
    """The first names of a list, and the number of the others."""
    return first_of([repr(name) for name in names], most=5)
