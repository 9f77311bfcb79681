"""The inputs of linear layers in calls of a network."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def watched(layers: Mapping[str, nn.Module], see: Callable[[str, Tensor], object]) -> Iterator[None]:
    """Calls a function with the name of a layer and its inputs each time one of the layers is called.

    Args:
        layers: Linear layers by name.
        see: The function.
    """

    def hook_of(name: str) -> Any:
        def hook(_: nn.Module, arguments: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
            see(name, (arguments[0] if arguments else named["input"]).detach())

        return hook

    handles = [layer.register_forward_pre_hook(hook_of(name), with_kwargs=True) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
