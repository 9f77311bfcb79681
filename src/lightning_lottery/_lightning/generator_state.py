"""The state of all random generators, as plain values that any checkpoint can hold."""

import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from lightning.fabric.utilities.seed import _collect_rng_states, _set_rng_states
from torch import Generator, Tensor


@dataclass
class GeneratorState:
    """The state of all generators at one moment.

    Attributes:
        common: The global ones: Python, NumPy, PyTorch, CUDA.
        own: Those that data loaders own, by name.
    """

    common: dict[str, Any] = field(default_factory=dict)
    own: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def capture(cls, generators: dict[str, Generator]) -> "GeneratorState":
        """Notes where all generators are."""
        # Lightning's own list of global generators. NumPy's array becomes a tensor, or a checkpoint that holds it
        # would not load with weights_only=True.
        common = _collect_rng_states()
        if "numpy" in common:
            kind, keys, *rest = common["numpy"]
            common["numpy"] = [kind, torch.from_numpy(keys.astype("int64")), *rest]
        return cls(common, {name: generator.get_state() for name, generator in generators.items()})

    def restore(self, generators: dict[str, Generator]) -> None:
        """Puts all generators back; those that the other moment did not know stay."""
        if self.common:
            common = dict(self.common)
            if "numpy" in common:
                kind, keys, *rest = common["numpy"]
                common["numpy"] = (kind, keys.numpy().astype("uint32"), *rest)
            if len(common.get("torch.cuda", [])) != torch.cuda.device_count():
                common.pop("torch.cuda", None)  # taken on another machine
            _set_rng_states(common)
        self.restore_own(generators)

    def restore_own(self, generators: dict[str, Generator]) -> None:
        """Puts back those that data loaders own."""
        for name, generator in generators.items():
            if name in self.own:
                generator.set_state(self.own[name])

    @classmethod
    def load(cls, values: dict[str, Any] | None) -> "GeneratorState | None":
        """Reads what ``vars`` gave; ``None`` stays ``None``."""
        return None if values is None else cls(**values)


def reseed(seed: int, generators: dict[str, Generator]) -> None:
    """Seeds all generators of this process; prints nothing and leaves the environment alone."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    for generator in generators.values():
        generator.manual_seed(seed)
