"""An ONNX file as a network, run by onnxruntime."""

from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from lightning_lottery.errors import ConfigurationError
from lightning_lottery.files import local_path

PARAMETERS, FLOPS = "lightning_lottery.parameters", "lightning_lottery.flops"


def require_onnx(*names: str) -> list[Any]:
    """Imports packages of the extra ``onnx``.

    Raises:
        ConfigurationError: One of them is not installed.
    """
    try:
        return [import_module(name) for name in names]
    except ImportError as error:
        raise ConfigurationError(
            f'ONNX needs the package {error.name}. Install the extra: pip install "lightning-lottery[onnx]"'
        ) from error


class OnnxNetwork(nn.Module):
    """An ONNX file that is called like the network that it was made from. It runs in onnxruntime.

    It has no gradients. It uses CUDA if onnxruntime has it, otherwise the CPU with as many threads as PyTorch.

    Args:
        path: The file, as written by :func:`onnx`.

    Raises:
        ConfigurationError: onnxruntime is not installed (extra ``onnx``), the path is a URL, or the file is not a
            valid ONNX file.
        FileNotFoundError: The file does not exist.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        (runtime,) = require_onnx("onnxruntime")
        self.path = local_path(path, "'network.onnx'")
        if not self.path.is_file():
            raise FileNotFoundError(f"The ONNX file {self.path} does not exist.")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # The first that is available is used.
        wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
        providers = [name for name in wanted if name in runtime.get_available_providers()]
        try:
            self._session = runtime.InferenceSession(str(self.path), options, providers=providers)
        except Exception as error:  # its exceptions have no common base
            raise ConfigurationError(f"onnxruntime cannot run {self.path}: {error}") from error
        self._inputs = [entry.name for entry in self._session.get_inputs()]
        found = self._session.get_modelmeta().custom_metadata_map
        self.parameter_count, self.flops = (int(found.get(key, 0)) for key in (PARAMETERS, FLOPS))

    def forward(self, *args: Any, **kwargs: Any) -> Tensor | tuple[Tensor, ...]:
        """Runs the file.

        Args:
            *args: What the network is called with.
            **kwargs: The same by name, in the order of the example that the file was made with.

        Returns:
            The output on the CPU; a tuple if the network returns several tensors.
        """
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if len(tensors) != len(self._inputs):
            raise ConfigurationError(
                f"{self.path} takes {len(self._inputs)} tensors ({', '.join(self._inputs)}), not {len(tensors)}."
            )
        arrays = [tensor.detach().cpu().numpy() for tensor in tensors]
        outputs = self._session.run(None, dict(zip(self._inputs, arrays, strict=True)))
        made = tuple(torch.from_numpy(output) for output in outputs)
        return made[0] if len(made) == 1 else made

    def __reduce__(self) -> tuple[type["OnnxNetwork"], tuple[Path]]:
        return OnnxNetwork, (self.path,)
