"""The command ``ticket export``: a ticket as a smaller or faster network, in a file."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import nn
from torch.utils._pytree import tree_leaves

from lightning_lottery import export
from lightning_lottery.channels import example_of, outputs_of, resized, samples_in, to_device_of
from lightning_lottery.cli.parts import Build, words_of_fit
from lightning_lottery.cli.printing import print_json
from lightning_lottery.cli.quiet import quiet
from lightning_lottery.errors import ConfigurationError, LotteryError
from lightning_lottery.files import local_path
from lightning_lottery.plain import check_integer, first_line
from lightning_lottery.storage import RunFolder
from lightning_lottery.tickets import Ticket, TicketSummary

_LOADERS = ("val_dataloader", "train_dataloader")
Format = Literal["best", "dense", "compact", "sparse", "onnx"]


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument(
        "--ticket", required=True, help="A ticket file, such as those in the folder tickets of a run."
    )
    parser.add_argument(
        "--config",
        required=True,
        action="append",
        help="The configuration of the fit, which has the network and the data (repeatable).",
    )
    parser.add_argument(
        "--override", default=[], action="append", help="Changes it, such as data.batch_size=10 (repeatable)."
    )
    parser.add_argument(
        "--format",
        type=Format,
        default="best",
        help="The masked network (dense), without superfluous channels (compact), with layers that skip zeros "
        "(sparse), the fastest of these (best), or an ONNX file (onnx).",
    )
    parser.add_argument("--out", required=True, help="The file to write, such as network.pt or network.onnx.")
    parser.add_argument(
        "--weights",
        type=str | None,
        help="A checkpoint with the trained weights (default: the weights in the ticket).",
    )
    parser.add_argument(
        "--batch_sizes",
        type=int,
        default=[],
        nargs="+",
        metavar="SIZE",
        help="What to measure, such as 1 60; best chooses by all of them (default: that of the validation data).",
    )
    parser.add_argument("--device", default="cpu", help="Where to measure, such as cuda.")
    parser.add_argument("--overwrite", action="store_true", help="Replace the file if it exists.")
    parser.add_argument("--json", action="store_true", help="Print JSON, for scripts.")


def export_ticket(build: Build, options: Namespace) -> None:
    """Exports a ticket, measures what that gains, and prints it.

    Args:
        build: Makes Trainer, network and data from the command line of a fit.
        options: The options of :func:`add_arguments`.

    Raises:
        LotteryError: An option is invalid, the ticket does not fit the network, or the exported network differs.
    """
    target = _target(options)
    if options.format == "onnx":
        export.require_onnx("onnx", "onnxscript", "onnxruntime")
    sizes = [check_integer("--batch_sizes", size, 1, "--batch_sizes 1 60") for size in options.batch_sizes]
    ticket = Ticket.load(options.ticket)
    if options.weights is not None:
        ticket = ticket.with_weights(options.weights)
    with quiet():
        # A network that was trained on a GPU can be exported on a machine without one.
        words = words_of_fit(options.config, options.override, "--trainer.accelerator=auto")
        model, example = _parts(*build(words), ticket, _device(options.device))
    if options.format != "onnx":
        export.check_can_be_saved(model)
    sizes = sizes or [samples_in(example) or 1]
    for size in sizes:
        outputs_of(export.dense(model, ticket), resized(example, size))
    _print(options, target, ticket, _exported(options.format, model, ticket, example, sizes, target))


def _target(options: Namespace) -> Path:
    """The file to write, which can be written and replaces nothing that is needed."""
    example = "network.onnx" if options.format == "onnx" else "network.pt"
    target = local_path(options.out, f"--out {example}")
    folder = next(parent for parent in target.absolute().parents if parent.exists())
    fault = None
    if target.is_dir():
        fault = "is a folder"
    elif not folder.is_dir():
        fault = f"is in {folder}, which is a file"
    elif not os.access(folder, os.W_OK):
        fault = f"is in {folder}, which is read-only"
    elif (target.suffix == ".onnx") != (options.format == "onnx"):
        fault = f"does not fit --format {options.format}"
    elif RunFolder.of_ticket(target) is not None or target.absolute() in _read(options):
        fault = "is a file of a run, or one that this command reads"
    if fault is not None:
        raise ConfigurationError(f"--out {target} {fault}. Write the path of a new file, such as {example}.")
    if target.exists() and not options.overwrite:
        raise ConfigurationError(f"{target} exists already. Write another path, or add --overwrite.")
    return target


def _read(options: Namespace) -> list[Path]:
    """The files that the command reads."""
    paths = [options.ticket, *options.config, *([] if options.weights is None else [options.weights])]
    return [Path(path).expanduser().absolute() for path in paths]


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # AssertionError: PyTorch without CUDA
        raise ConfigurationError(
            f"--device {name} cannot be used: {first_line(error)}. Write for example cpu."
        ) from error
    return device


def _parts(
    trainer: Trainer,
    model: LightningModule,
    data: LightningDataModule | None,
    ticket: Ticket,
    device: torch.device,
) -> tuple[LightningModule, Any]:
    """The network with the weights of a ticket, and an example of its inputs, on a device."""
    # In the order of a fit: the weights come last, since these hooks may make layers and set weights.
    model.trainer = trainer
    if data is not None:
        data.trainer = trainer
    for part in (data, model):
        if part is not None:
            part.prepare_data()
            part.setup("fit")
    model.configure_model()
    ticket.apply(model)
    example = example_of(model, None if model.example_input_array is not None else _batch(model, data))
    model.to(device)
    return model, to_device_of(model, example)


def _batch(model: LightningModule, data: LightningDataModule | None) -> Any:
    """The first batch of the validation data, or of the training data without any."""
    source = model if data is None else data
    batches = (_first(getattr(source, name)()) for name in _LOADERS if is_overridden(name, source))
    batch = next((batch for batch in batches if batch is not None), None)
    if batch is None:
        raise ConfigurationError(
            f"{type(source).__name__} has no batch in {' or '.join(_LOADERS)}, so an example of the inputs is "
            "missing. Set self.example_input_array in the LightningModule."
        )
    for name in ("on_before_batch_transfer", "on_after_batch_transfer"):
        owner = source if is_overridden(name, source) else model
        batch = getattr(owner, name)(batch, 0)
    return batch


def _first(loader: Any) -> Any:
    """The first batch of a loader, or of the first one in a collection; ``None`` without any."""
    loaders = loader.flattened if isinstance(loader, CombinedLoader) else tree_leaves(loader)
    return next(iter(loaders[0]), None) if loaders else None


def _exported(
    form: Format, model: nn.Module, ticket: Ticket, example: Any, sizes: list[int], target: Path
) -> export.ExportReport:
    """Writes the file, and says what it gains."""
    if form == "onnx":
        return _onnx(model, ticket, example, sizes, target)
    if form == "best":
        network, report = export.best(model, ticket, example, sizes)
    else:
        network = _network(form, model, ticket, example)
        report = export.ExportReport.measure(model, ticket, network, example, sizes, form=form)
    export.save_network(network, target, example)
    return report


def _network(form: Format, model: nn.Module, ticket: Ticket, example: Any) -> nn.Module:
    if form == "dense":
        return export.dense(model, ticket)
    return (export.compact if form == "compact" else export.sparse)(model, ticket, example)


def _onnx(model: nn.Module, ticket: Ticket, example: Any, sizes: list[int], target: Path) -> export.ExportReport:
    """Writes an ONNX file without the superfluous channels, if they can be removed."""
    left_out = {}
    try:
        source = export.compact(model, ticket, example)
    except LotteryError as error:
        source, left_out = export.dense(model, ticket), {"compact": first_line(error)}
    network = export.onnx(source, None, example, target)
    report = export.ExportReport.measure(model, ticket, network, example, sizes, form="ONNX")
    return replace(report, left_out=left_out)


def _print(options: Namespace, target: Path, ticket: Ticket, report: export.ExportReport) -> None:
    summary = TicketSummary.of(ticket)
    if options.json:
        numbers = {"file": str(target), "bytes": target.stat().st_size, "is_trained": summary.is_trained}
        print_json({**numbers, **report.to_json()})
        return
    print(f"{report}\n")
    if options.format == "onnx":
        print(f"{target}: lightning_lottery.export.OnnxNetwork({str(target)!r}), or any other runtime of ONNX")
    else:
        print(f"{target}: torch.load({str(target)!r}, weights_only=False) gives the network")
    hint = (
        " To export the trained network, add --weights with its checkpoint." if summary.is_trained is False else ""
    )
    print(summary.meaning + hint)
