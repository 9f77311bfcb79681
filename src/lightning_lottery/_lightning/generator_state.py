"""The state of all random generators, as plain values for checkpoints."""

import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from lightning.fabric.utilities.seed import _collect_rng_states, _set_rng_states
from torch import Generator, Tensor


@dataclass
class GeneratorState:
    """The state of all random generators at one moment.

    Attributes:
        common: The global generators: Python, NumPy, PyTorch, CUDA.
        own: The generators of data loaders, by name.
    """

    common: dict[str, Any] = field(default_factory=dict)
    own: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def capture(cls, generators: dict[str, Generator]) -> "GeneratorState":
        """Reads the state of all generators."""
        # Lightning's own list of global generators. NumPy's array becomes a tensor; else checkpoints would not
        # load with weights_only=True.
        common = _collect_rng_states()
        if "numpy" in common:
            kind, keys, *rest = common["numpy"]
            common["numpy"] = [kind, torch.from_numpy(keys.astype("int64")), *rest]
        return cls(common, {name: generator.get_state() for name, generator in generators.items()})

    def restore(self, generators: dict[str, Generator]) -> None:
        """Restores all generators. Generators without a saved state are not changed."""
        if self.common:
            common = dict(self.common)
            if "numpy" in common:
                kind, keys, *rest = common["numpy"]
                common["numpy"] = (kind, keys.numpy().astype("uint32"), *rest)
            if len(common.get("torch.cuda", [])) != torch.cuda.device_count():
                common.pop("torch.cuda", None)  # saved on another machine
            _set_rng_states(common)
        self.restore_own(generators)

    def restore_own(self, generators: dict[str, Generator]) -> None:
        """Restores the generators of data loaders."""
        for name, generator in generators.items():
            if name in self.own:
                generator.set_state(self.own[name])

    @classmethod
    def load(cls, values: dict[str, Any] | None) -> "GeneratorState | None":
        """Makes a state from the result of ``vars``; ``None`` stays ``None``."""
        return None if values is None else cls(**values)


def reseed(seed: int, generators: dict[str, Generator]) -> None:
    """Seeds all generators of this process, without output and without changing environment variables."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    for generator in generators.values():
        generator.manual_seed(seed)
