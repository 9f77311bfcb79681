"""The command ``ticket``: shows, compares, converts, exports and ships ticket files."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace

from lightning_lottery._lightning import Command
from lightning_lottery.analysis import overlap
from lightning_lottery.cli.export import add_arguments as add_export_arguments
from lightning_lottery.cli.export import export_ticket
from lightning_lottery.cli.parts import Build
from lightning_lottery.cli.printing import print_json, print_text
from lightning_lottery.errors import ConfigurationError, LotteryError, TicketError
from lightning_lottery.masks import fingerprint
from lightning_lottery.plain import finite
from lightning_lottery.report import overlap_text, ticket_text
from lightning_lottery.storage import RoundRecord, RunFolder
from lightning_lottery.tickets import (
    ModelCard,
    RoundId,
    Ticket,
    TicketSummary,
    is_ticket_file,
)

_METRICS, _HEADER = "'{\"val_acc\": 0.93}'", '\'{"license": "mit"}\''
_EXAMPLES = {
    "show": "run/tickets/round_03.safetensors",
    "compare": "first/tickets/round_03.safetensors second/tickets/round_03.safetensors",
    "convert": "trained.ckpt trained.safetensors --masks run/tickets/round_03.safetensors",
    "export": "--ticket run/tickets/round_03.safetensors --weights trained.ckpt --config exp.yaml --out small.pt",
    "hub": "run/tickets/round_03.safetensors shipped --weights trained.ckpt",
}


def add_arguments(build: Build, parser: ArgumentParser) -> None:
    """Adds the commands below ``ticket``, with their arguments.

    Args:
        build: Makes Trainer, network and data from the command line of a fit.
        parser: The parser of ``ticket``.
    """
    commands = parser.add_subcommands(required=True, dest="command")
    for name, command in _commands(build).items():
        example = f"Example: lightning-lottery ticket {name} {_EXAMPLES[name]}"
        inner = ArgumentParser(description=f"{command.summary} {example}")
        command.add_arguments(inner)
        commands.add_subcommand(name, inner, help=command.summary)


def ticket(build: Build, options: Namespace) -> None:
    """Runs a command below ``ticket``.

    Args:
        build: Makes Trainer, network and data from the command line of a fit.
        options: The options of :func:`add_arguments`.

    Raises:
        LotteryError: A file is missing, damaged or not what the command needs.
    """
    try:
        _commands(build)[options.command].run(options[options.command])
    except FileNotFoundError as error:  # has a message for people
        raise TicketError(str(error)) from error


def _commands(build: Build) -> dict[str, Command]:
    show = "Shows a ticket: density, layers, where it comes from."
    compare = "Compares two tickets: overlap of their masks, agreement of their signs."
    convert = "Makes a ticket file of a checkpoint, of masks of others, or of an older ticket file."
    export = "Writes the network of a ticket in its fastest form, or as ONNX, and measures what that gains."
    hub = "Writes a folder for a model hub, with a model card, and may upload it."
    return {
        "show": Command(show, _add_show, _show),
        "compare": Command(compare, _add_compare, _compare),
        "convert": Command(convert, _add_convert, _convert),
        "export": Command(export, add_export_arguments, partial(export_ticket, build)),
        "hub": Command(hub, _add_hub, _hub),
    }


def _add_show(parser: ArgumentParser) -> None:
    parser.add_argument("file", help="A ticket file, such as those in the folder tickets of a run.")
    _add_json(parser)


def _add_compare(parser: ArgumentParser) -> None:
    parser.add_argument("first", help="A ticket file.")
    parser.add_argument("second", help="Another ticket file, with layers of the same names and shapes.")
    _add_json(parser)


def _add_convert(parser: ArgumentParser) -> None:
    parser.add_argument(
        "source",
        help="Where the weights come from: a ticket file of any version, a Lightning checkpoint, or a file of "
        "PyTorch or safetensors with a state dict.",
    )
    parser.add_argument("target", help="The ticket file to write, such as ticket.safetensors.")
    parser.add_argument(
        "--masks",
        type=str | None,
        help="Where the masks come from: a ticket file, or a file of PyTorch or safetensors with masks (booleans "
        "or zeros and ones), by the names of weights or layers. By default the source: its masks of "
        "torch.nn.utils.prune, or else its weights that are exactly zero.",
    )
    for option, what in (("--include", "with masks, too"), ("--exclude", "without masks")):
        parser.add_argument(
            option, default=[], action="append", metavar="PATTERN", help=f"Names of weights {what} (repeatable)."
        )
    parser.add_argument("--overwrite", action="store_true", help="Replace another ticket file at the target.")
    _add_json(parser)


def _add_hub(parser: ArgumentParser) -> None:
    parser.add_argument("file", help="A ticket file. In a run folder, the metrics of its round are found there.")
    parser.add_argument("folder", help="The folder to write.")
    parser.add_argument(
        "--weights",
        type=str | None,
        help="A checkpoint with the trained values, instead of those that training starts from.",
    )
    parser.add_argument(
        "--metrics",
        type=str | None,
        help=f"Results of the trained ticket, instead of those in its run: {_METRICS}.",
    )
    parser.add_argument("--dense_metrics", type=str | None, help="The same of the dense network.")
    parser.add_argument("--description", default="", help="What the network is and does, in Markdown.")
    parser.add_argument("--header", type=str | None, help=f"Further entries of the card's header: {_HEADER}.")
    parser.add_argument("--repo", default="", metavar="USER/NAME", help="The repository that the card names.")
    parser.add_argument("--push", action="store_true", help="Also upload to that repository.")
    parser.add_argument("--private", action="store_true", help="With --push: make a new repository private.")
    _add_json(parser)


def _add_json(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="Print JSON, for scripts.")


def _show(options: Namespace) -> None:
    _print_ticket(Ticket.load(options.file), Path(options.file).expanduser(), options.json)


def _compare(options: Namespace) -> None:
    first, second = Ticket.load(options.first), Ticket.load(options.second)
    found = overlap(first, second)
    if options.json:
        print_json({"first": options.first, "second": options.second, **found.to_json()})
    else:
        print_text(overlap_text(found, _named(options.first, first), _named(options.second, second)))


def _named(path: str, made: Ticket) -> str:
    return f"{path} ({made.id}, density {made.density:.4f})"


def _convert(options: Namespace) -> None:
    source, target = Path(options.source).expanduser(), Path(options.target).expanduser()
    made = _converted(options)
    if target.exists() and not (source.exists() and target.samefile(source)):
        _check_replaceable(target, made, options.overwrite)
    elif target.exists() and not is_ticket_file(target):
        raise TicketError(f"{target} is the source. Write the path of a new file, such as ticket.safetensors.")
    made.save(target)
    _print_ticket(made, target, options.json)


def _check_replaceable(target: Path, made: Ticket, overwrite: bool) -> None:
    """Checks that a file may be replaced: by the same ticket, or by another one if the user says so."""
    if target.is_dir() or not is_ticket_file(target):
        what = "is a folder" if target.is_dir() else "exists already, and is not a ticket file"
        raise TicketError(f"{target} {what}. Write the path of a new file, such as ticket.safetensors.")
    if RunFolder.of_ticket(target) is not None:
        raise TicketError(f"{target} belongs to a run, which needs it. Write another path.")
    if not overwrite and Ticket.load(target).fingerprint != made.fingerprint:
        raise TicketError(f"{target} is another ticket. Write another path, or add --overwrite.")


def _converted(options: Namespace) -> Ticket:
    source, masks = options.source, options.masks
    is_ticket, has_ticket = _is_ticket(source), masks is not None and _is_ticket(masks)
    if is_ticket and masks is not None:
        raise ConfigurationError(
            f"{source} is a ticket file, which has masks. To put the weights of {masks} under them, write: "
            f"ticket convert {masks} {options.target} --masks {source}"
        )
    if (is_ticket or has_ticket) and (options.include or options.exclude):
        raise ConfigurationError("--include and --exclude select among weights, but a ticket file has its masks.")
    if is_ticket:
        return Ticket.load(source)
    if has_ticket:
        return Ticket.load(masks).with_weights(source)
    made = Ticket.from_state_dict(source, options.include, options.exclude, masks)
    if masks is None and made.kept == made.prunable:
        raise TicketError(f"{source} has no masks, and none of its weights is zero. Add --masks FILE.")
    return made


def _is_ticket(path: str) -> bool:
    return is_ticket_file(Path(path).expanduser())


def _hub(options: Namespace) -> None:
    if (options.private and not options.push) or (options.push and not options.repo):
        raise ConfigurationError("--private needs --push, and --push needs --repo USER/NAME.")
    made = Ticket.load(options.file)
    found = {record.id: record.metrics for record in _records(Path(options.file).expanduser(), made)}
    dense = found.get(RoundId(0), {}) if made.id != RoundId(0) else {}
    card = ModelCard(
        _mapping("--metrics", options.metrics, found.get(made.id, {}), _METRICS),
        _mapping("--dense_metrics", options.dense_metrics, dense, _METRICS),
        options.description,
        options.repo,
        _mapping("--header", options.header, {}, _HEADER),
    )
    shipped = made if options.weights is None else made.with_weights(options.weights)
    shipped.save_pretrained(options.folder, card)
    url = shipped.push_to_hub(options.repo, card, private=options.private or None) if options.push else None
    summary = TicketSummary.of(shipped)
    if options.json:
        print_json({"folder": options.folder, "url": url, **summary.to_json()})
        return
    print(f"{options.folder}: ticket.safetensors, config.json and the model card README.md")
    hint = (
        " To ship the trained network, add --weights with its checkpoint." if summary.is_trained is False else ""
    )
    print(summary.meaning + hint)
    if url is not None:
        print(url)


def _mapping(option: str, text: str | None, default: Mapping[str, Any], example: str) -> Mapping[str, Any]:
    """An option as a dictionary, in JSON or YAML."""
    if text is None:
        return default
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = None
    if not isinstance(value, dict):
        raise ConfigurationError(f"{option} {text!r} is not a dictionary. Write for example {option} {example}")
    return value


def _print_ticket(shown: Ticket, path: Path, as_json: bool) -> None:
    summary, records = TicketSummary.of(shown), _records(path, shown)
    if as_json:
        results = {str(record.id): finite(record.metrics) for record in records}
        print_json({"file": str(path), "bytes": path.stat().st_size, **summary.to_json(), "results": results})
    else:
        print_text(ticket_text(summary, path, records))


def _records(path: Path, shown: Ticket) -> list[RoundRecord]:
    """The records of a ticket's round and of round 0, if the file is that of a finished round in a run folder."""
    folder = RunFolder.of_ticket(path)
    try:
        found = {} if folder is None else {record.id: record for record in folder.read_records()}
    except LotteryError:  # a ticket can be shown even if the records of its run are damaged
        return []
    own = found.get(shown.id)
    if own is None or own.masks_hash != fingerprint(shown.masks):
        return []
    return [found[entry] for entry in dict.fromkeys([shown.id, RoundId(0)]) if entry in found]
