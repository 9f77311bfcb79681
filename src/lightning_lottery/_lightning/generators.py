"""Reads and restores the state of all random generators."""

import random

import numpy as np
import torch
from lightning.fabric.utilities.seed import _collect_rng_states, _set_rng_states
from torch import Generator

from lightning_lottery.storage import GeneratorState


def capture(generators: dict[str, Generator]) -> GeneratorState:
    """Reads the state of all generators.

    Args:
        generators: The generators of data loaders, by name.
    """
    # Lightning's own list of global generators. NumPy's array becomes a tensor; else checkpoints would not load
    # with weights_only=True.
    common = _collect_rng_states()
    if "numpy" in common:
        kind, keys, *rest = common["numpy"]
        common["numpy"] = [kind, torch.from_numpy(keys.astype("int64")), *rest]
    return GeneratorState(common, {name: generator.get_state() for name, generator in generators.items()})


def restore(state: GeneratorState, generators: dict[str, Generator]) -> None:
    """Restores all generators. Generators without a saved state are not changed."""
    if state.common:
        common = dict(state.common)
        if "numpy" in common:
            kind, keys, *rest = common["numpy"]
            common["numpy"] = (kind, keys.numpy().astype("uint32"), *rest)
        if len(common.get("torch.cuda", [])) != torch.cuda.device_count():
            common.pop("torch.cuda", None)  # saved on another machine
        _set_rng_states(common)
    restore_own(state, generators)


def restore_own(state: GeneratorState, generators: dict[str, Generator]) -> None:
    """Restores the generators of data loaders."""
    for name, generator in generators.items():
        if name in state.own:
            generator.set_state(state.own[name])


def reseed(seed: int, generators: dict[str, Generator]) -> None:
    """Seeds all generators of this process, without output and without changing environment variables."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    reseed_own(seed, generators)


def reseed_own(seed: int, generators: dict[str, Generator]) -> None:
    """Seeds the generators of data loaders."""
    for generator in generators.values():
        generator.manual_seed(seed)
