"""A ticket as an ONNX file."""

import warnings
from collections.abc import Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.utils._pytree import tree_map

from lightning_lottery.channels import outputs_of, resized, samples_in
from lightning_lottery.errors import ConfigurationError, ExportError
from lightning_lottery.export.agreement import Expected
from lightning_lottery.export.dense import masked_and_example
from lightning_lottery.export.measure import flops_per_sample, stored_parameters
from lightning_lottery.export.onnx_network import OnnxCall, OnnxNetwork, OnnxNumbers, require_onnx
from lightning_lottery.export.sparse import sparse_layers
from lightning_lottery.files import local_path, written_atomically
from lightning_lottery.plain import first_line, first_of
from lightning_lottery.tickets import Ticket

_FIXED = "If the network needs a fixed batch size, write dynamic_batch=False."


@torch.inference_mode(False)
def onnx(
    model: nn.Module,
    ticket: Ticket | str | Path | None,
    example: Any,
    path: str | Path,
    dynamic_batch: bool = True,
) -> OnnxNetwork:
    """Writes the network as an ONNX file, with the masks of the ticket in its weights.

    ``torch.export`` traces the network, ``torch.onnx.export`` converts it. The file is run in onnxruntime and
    compared with the masked network on the example, on the example with noise, and at other batch sizes. It is
    written only if the outputs agree. Masked weights take as much space as others: to make a smaller file, export
    the result of :func:`compact`, with ``ticket=None``.

    Args:
        model: The network, with the weights to export. It is not changed.
        ticket: The ticket, or the path of its file; ``None`` for a network that needs no masks, such as the result
            of :func:`compact`.
        example: Real inputs that the network is called with: a tensor with the samples along its first dimension,
            a tuple of arguments, or a dictionary of keyword arguments.
        path: The file. It is written atomically.
        dynamic_batch: Whether the file accepts any number of samples; otherwise only as many as the example has.

    Returns:
        The file as a network, which onnxruntime runs.

    Raises:
        ConfigurationError: A package is missing (extra ``onnx``), the network fails on the example, it cannot be
            traced or converted, or the path is a URL or a folder.
        ExportError: The outputs differ by more than 1e-4 of the largest output (2e-2 for 16-bit types), or contain
            no finite number; or onnxruntime cannot run the file, or it would be larger than 2 GiB.
        FolderError: The file cannot be written.
        TicketError: The ticket does not fit the network.
    """
    require_onnx("onnx", "onnxscript", "onnxruntime")
    if torch.__version__ < "2.5":
        raise ConfigurationError(f"Writing ONNX files needs PyTorch 2.5 or newer, not {torch.__version__}.")
    target = local_path(path, "'network.onnx'")
    if target.is_dir():
        raise ConfigurationError(f"{target} is a folder. Write for example {str(target / 'network.onnx')!r}.")
    masked, example = masked_and_example(model, ticket, example)
    if found := sparse_layers(masked):
        raise ConfigurationError(
            f"{first_of(found)} are sparse layers, which ONNX does not have. Pass the network without them."
        )
    expected = Expected.of(masked, _examples(masked, example, dynamic_batch))
    # A file that cannot be written is noticed before the network is traced.
    with written_atomically(target) as temporary:
        _write(masked, example, dynamic_batch, temporary)
        try:
            difference = expected.difference(OnnxNetwork(temporary))
        except ConfigurationError as error:
            raise ExportError(f"The ONNX file does not run, so that it is not written. {error}") from error
        if difference > expected.tolerance:
            raise ExportError(
                f"The outputs of the ONNX file differ from those of {type(model).__name__} by "
                f"{difference:.1g} of the largest output; at most {expected.tolerance:g} is allowed. So it is not "
                "written."
            )
    return OnnxNetwork(target)


def _examples(masked: nn.Module, example: Any, dynamic_batch: bool) -> Sequence[Any]:
    """The example, with other batch sizes if the batch size is dynamic."""
    outputs_of(masked, example)
    others = [resized(example, size) for size in (1, 3) if dynamic_batch and size != samples_in(example)]
    for other in others:
        try:
            outputs_of(masked, other)
        except ConfigurationError as error:
            raise ConfigurationError(f"{error}. {_FIXED}") from error
    return [example, *others]


def _write(masked: nn.Module, example: Any, dynamic_batch: bool, path: Path) -> None:
    """Traces and converts a network, and writes the file."""
    # torch.export takes a dimension of length 1 for a constant.
    traced = resized(example, max(2, samples_in(example))) if dynamic_batch else example
    named = dict(traced) if isinstance(traced, Mapping) else {}
    arguments = () if named else tuple(traced) if isinstance(traced, (tuple, list)) else (traced,)
    call = OnnxCall.of(masked, arguments, named)
    numbers = OnnxNumbers(stored_parameters(masked), flops_per_sample(masked, example))
    converted = _converted(masked, arguments, named, samples_in(traced) if dynamic_batch else None)
    converted.model.metadata_props.update(OnnxNetwork.metadata(call, numbers))
    _save(converted, path)


def _converted(masked: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], samples: int | None) -> Any:
    """The network as an ``ONNXProgram`` of PyTorch; with any number of samples unless ``samples`` is ``None``."""
    bound = signature(masked.forward).bind(*arguments, **named).arguments
    shapes = None if samples is None else _dynamic(dict(bound), samples)
    what = f"{type(masked).__name__} cannot be"
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            program = torch.export.export(masked, arguments, named, dynamic_shapes=shapes, strict=False)
        except Exception as error:  # it has no common base for what it raises
            raise ConfigurationError(
                f"{what} traced by torch.export: {first_line(error)} The forward must not depend on the values of "
                "tensors." + ("" if samples is None else f" {_FIXED}")
            ) from error
        try:
            return torch.onnx.export(program, dynamo=True, verbose=False)
        except Exception as error:
            raise ConfigurationError(f"{what} converted to ONNX: {first_line(error)}") from error


def _dynamic(arguments: Any, samples: int) -> Any:
    """Marks the dimension of samples in all tensors."""
    batch = Dim("batch")

    def dimensions(leaf: Any) -> Any:
        has_samples = isinstance(leaf, Tensor) and leaf.dim() and leaf.shape[0] == samples
        return {0: batch} if has_samples else None

    return tree_map(dimensions, arguments)


def _save(converted: Any, path: Path) -> None:
    try:
        converted.save(path, external_data=False)
    except OSError:
        raise
    except Exception as error:
        raise ExportError(
            f"The ONNX file cannot be written: {first_line(error)} A single file holds at most 2 GiB."
        ) from error
