"""An ONNX file as a network, run by onnxruntime."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib import import_module
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import MappingKey, keystr, tree_flatten_with_path

from lightning_lottery.errors import ConfigurationError
from lightning_lottery.files import local_path
from lightning_lottery.plain import first_line

_METADATA = "lightning_lottery"


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


@dataclass(frozen=True)
class OnnxCall:
    """How a network was called when its ONNX file was made, as plain values for the metadata of the file.

    Attributes:
        parameters: The parameters of ``forward``: names, and names of their kinds (:class:`inspect.Parameter`).
        tensors: Where the tensors are among the arguments, such as ``"['images']"``, in the order of the file.
        constants: Where the other values are, each as ``repr`` shows it.
    """

    parameters: Sequence[tuple[str, str]]
    tensors: Sequence[str]
    constants: Mapping[str, str]

    @classmethod
    def of(cls, module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> "OnnxCall":
        """Describes a call of a network."""
        parameters = signature(module.forward).parameters.values()
        bound = signature(module.forward).bind(*args, **kwargs).arguments
        tensors, constants = _split(bound)
        return cls([(p.name, p.kind.name) for p in parameters], list(tensors), constants)

    @cached_property
    def _is_plain(self) -> bool:
        """Whether the file takes just the first arguments, and all of them are tensors."""
        first = [keystr((MappingKey(name),)) for name, kind in self.parameters[: len(self.tensors)]]
        return not self.constants and list(self.tensors) == first

    def arranged(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
        """The tensors of a call, in the order of the file.

        Raises:
            ConfigurationError: The tensors are not those of the file, or another value differs.
        """
        # The usual case, fast: a call takes less than 0.1 ms.
        are_tensors = all(isinstance(value, Tensor) for value in args)
        if self._is_plain and are_tensors and not kwargs and len(args) == len(self.tensors):
            return list(args)
        parameters = []
        for name, kind in self.parameters:
            default = Parameter.empty if kind.startswith("VAR_") else None
            parameters.append(Parameter(name, getattr(Parameter, kind), default=default))
        try:
            tensors, constants = _split(Signature(parameters).bind(*args, **kwargs).arguments)
        except TypeError as error:
            raise ConfigurationError(f"The file cannot be called so: {error}.") from error
        if tensors.keys() != set(self.tensors):
            raise ConfigurationError(
                f"The file takes tensors at {', '.join(self.tensors)}, not at {', '.join(tensors) or 'no place'}."
            )
        for place, value in constants.items():
            if self.constants.get(place, "None") != value:
                raise ConfigurationError(
                    f"{place} is {value}, but the file was made with {self.constants.get(place, 'its default')}. "
                    "Only tensors can change. Export the network again."
                )
        return [tensors[place] for place in self.tensors]


def _split(arguments: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Arguments by their places: the tensors, and other values as ``repr`` shows them."""
    leaves, _ = tree_flatten_with_path(dict(arguments))
    tensors = {keystr(path): leaf for path, leaf in leaves if isinstance(leaf, Tensor)}
    return tensors, {keystr(path): repr(leaf) for path, leaf in leaves if not isinstance(leaf, Tensor)}


@dataclass(frozen=True)
class OnnxNumbers:
    """What an ONNX file says about the network that it was made from.

    Attributes:
        parameters: Number of parameters.
        flops: Floating-point operations per sample.
    """

    parameters: int
    flops: int


class OnnxNetwork(nn.Module):
    """An ONNX file that is called like the network that it was made from. It runs in onnxruntime.

    It has no gradients. It uses CUDA if onnxruntime has it, otherwise the CPU with as many threads as PyTorch.

    Args:
        path: The file, as written by :func:`onnx`.

    Raises:
        ConfigurationError: onnxruntime is not installed (extra ``onnx``), the path is a URL, or the file was not
            written by :func:`onnx`.
        FileNotFoundError: The file does not exist.
    """

    numbers: OnnxNumbers

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        (runtime,) = require_onnx("onnxruntime")
        self.path = local_path(path, "'network.onnx'").absolute()
        if not self.path.is_file():
            raise FileNotFoundError(f"The ONNX file {path} does not exist.")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # The first that is available is used.
        wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
        providers = [name for name in wanted if name in runtime.get_available_providers()]
        try:
            self._session = runtime.InferenceSession(str(self.path), options, providers=providers)
            self._names = [entry.name for entry in self._session.get_inputs()]
            found = json.loads(self._session.get_modelmeta().custom_metadata_map[_METADATA])
            self._call, self.numbers = OnnxCall(**found["call"]), OnnxNumbers(**found["numbers"])
        except KeyError as error:
            raise ConfigurationError(f"{path} was not written by lightning_lottery.export.onnx.") from error
        except Exception as error:  # those of onnxruntime have no common base
            raise ConfigurationError(f"onnxruntime cannot run the file: {first_line(error)}") from error

    @staticmethod
    def metadata(call: OnnxCall, numbers: OnnxNumbers) -> dict[str, str]:
        """The metadata of a file."""
        return {_METADATA: json.dumps({"call": asdict(call), "numbers": asdict(numbers)})}

    def forward(self, *args: Any, **kwargs: Any) -> Tensor | tuple[Tensor, ...]:
        """Runs the file.

        Args:
            *args: What the network is called with.
            **kwargs: The same by name.

        Returns:
            The output on the CPU; a tuple if the network returns several tensors.

        Raises:
            ConfigurationError: The file was made for other tensors, or for other values besides them.
        """
        arrays = [tensor.detach().cpu().numpy() for tensor in self._call.arranged(args, kwargs)]
        try:
            outputs = self._session.run(None, dict(zip(self._names, arrays, strict=True)))
        except Exception as error:
            raise ConfigurationError(f"onnxruntime refuses these inputs: {first_line(error)}") from error
        made = tuple(torch.from_numpy(output) for output in outputs)
        return made[0] if len(made) == 1 else made

    def __reduce__(self) -> tuple[type["OnnxNetwork"], tuple[Path]]:
        return OnnxNetwork, (self.path,)
