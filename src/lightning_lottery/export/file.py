"""Networks as files of ``torch.save``."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightning_lottery.channels import copy_of, to_device_of
from lightning_lottery.errors import ConfigurationError, ExportError
from lightning_lottery.export.agreement import Expected
from lightning_lottery.export.measure import pickled_bytes
from lightning_lottery.files import written_atomically
from lightning_lottery.plain import first_line


def check_can_be_saved(model: nn.Module) -> None:
    """Checks that a network can be written as a file, before anything is computed.

    Raises:
        ConfigurationError: It cannot.
    """
    try:
        pickled_bytes(copy_of(model))
    except ConfigurationError:
        raise
    except Exception as error:  # pickle raises AttributeError, TypeError and others
        raise ConfigurationError(
            f"{type(model).__name__} cannot be pickled: {first_line(error)}. Remove attributes that are functions "
            "inside functions, or write an ONNX file."
        ) from error


def save_network(network: nn.Module, path: Path, example: Any) -> None:
    """Writes a network with ``torch.save``, if it has the same outputs when it is loaded again.

    Args:
        network: The network, in evaluation mode.
        path: The file. It is written atomically.
        example: What the network is called with.

    Raises:
        ExportError: The loaded network has other outputs. Nothing is written.
        FolderError: The file cannot be written.
    """
    with written_atomically(path) as temporary:
        # Saved before it is called, since a call may leave something in it.
        torch.save(network, temporary)
        expected = Expected.of(network, [to_device_of(network, example)])
        try:
            agrees = expected.agrees(torch.load(temporary, weights_only=False))
        except OSError:
            raise
        except Exception as error:  # whatever the class raises while it is loaded
            raise ExportError(f"{type(network).__name__} cannot be loaded again: {first_line(error)}") from error
        if not agrees:
            raise ExportError(
                f"{type(network).__name__} has other outputs when it is loaded again, so that nothing is written."
            )
