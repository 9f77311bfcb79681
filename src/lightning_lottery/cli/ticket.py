"""The command ``ticket``: shows, compares, converts and ships ticket files."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from lightning_lottery._lightning import Command
from lightning_lottery.analysis import overlap
from lightning_lottery.errors import ConfigurationError, TicketError
from lightning_lottery.report import ascii_bars, overlap_text, ticket_text
from lightning_lottery.storage import RoundRecord, RunFolder
from lightning_lottery.tickets import ModelCard, RoundId, Ticket, TicketSummary, is_ticket_file


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the commands below ``ticket``, with their arguments."""
    commands = parser.add_subcommands(required=True, dest="command")
    for name, command in _COMMANDS.items():
        inner = ArgumentParser(description=command.summary)
        command.add_arguments(inner)
        commands.add_subcommand(name, inner, help=command.summary)


def ticket(options: Namespace) -> None:
    """Runs a command below ``ticket``.

    Args:
        options: The options of :func:`add_arguments`.

    Raises:
        LotteryError: A file is missing, damaged or not what the command needs.
    """
    try:
        _COMMANDS[options.command].run(options[options.command])
    except FileNotFoundError as error:  # has a message for people
        raise TicketError(str(error)) from error


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
        help="Where the masks come from: a ticket file, or a file with a mask for each weight by its name. By "
        "default the source: its masks of torch.nn.utils.prune, or else its weights that are exactly zero.",
    )
    parser.add_argument(
        "--include",
        default=[],
        action="append",
        metavar="PATTERN",
        help="Names that have masks, too (repeatable).",
    )
    parser.add_argument(
        "--exclude", default=[], action="append", metavar="PATTERN", help="Names without masks (repeatable)."
    )
    _add_json(parser)


def _add_hub(parser: ArgumentParser) -> None:
    parser.add_argument("file", help="A ticket file. In a run folder, the metrics of its round are found there.")
    parser.add_argument("folder", help="The folder to write.")
    parser.add_argument(
        "--metrics",
        type=dict[str, float] | None,
        help="Results of the trained ticket, such as '{\"val_acc\": 0.93}' (default: those in its run folder).",
    )
    parser.add_argument("--description", default="", help="What the network is and does, in Markdown.")
    parser.add_argument(
        "--header", type=dict[str, Any], default={}, help='Entries of the card, such as \'{"license": "mit"}\'.'
    )
    parser.add_argument("--push", type=str | None, metavar="USER/NAME", help="Also upload to this repository.")
    parser.add_argument("--private", action="store_true", help="With --push: make a new repository private.")


def _add_json(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="Print JSON, for scripts.")


def _show(options: Namespace) -> None:
    _print_ticket(Ticket.load(options.file), Path(options.file).expanduser(), options.json)


def _compare(options: Namespace) -> None:
    found = overlap(Ticket.load(options.first), Ticket.load(options.second))
    if options.json:
        _print_json({"first": options.first, "second": options.second, **found.to_json()})
    else:
        _print_text(overlap_text(found, options.first, options.second))


def _convert(options: Namespace) -> None:
    target = Path(options.target).expanduser()
    if target.is_dir():
        raise TicketError(f"{target} is a folder. Write the path of a file: {target / 'ticket.safetensors'}.")
    if target.exists() and not is_ticket_file(target):
        raise TicketError(f"{target} is there already, and is not a ticket file. Write another path.")
    made = _converted(options.source, options.masks, options.include, options.exclude)
    made.save(options.target)
    _print_ticket(made, target, options.json)


def _converted(source: str, masks: str | None, include: Sequence[str], exclude: Sequence[str]) -> Ticket:
    is_ticket, has_ticket = _is_ticket(source), masks is not None and _is_ticket(masks)
    if is_ticket and masks is not None:
        raise ConfigurationError(f"{source} is a ticket file and has masks already. Leave out --masks.")
    if (is_ticket or has_ticket) and (include or exclude):
        raise ConfigurationError("--include and --exclude select among weights, but a ticket file has its masks.")
    if is_ticket:
        return Ticket.load(source)
    if masks is not None and has_ticket:
        return Ticket.load(masks).with_weights(source)
    return Ticket.from_state_dict(source, include, exclude, masks)


def _is_ticket(path: str) -> bool:
    return is_ticket_file(Path(path).expanduser())


def _hub(options: Namespace) -> None:
    path = Path(options.file).expanduser()
    made, entry = Ticket.load(path), RoundId.parse(path.stem)
    found = {entry: record.metrics for entry, record in _records(path).items()}
    metrics = found.get(entry, {}) if entry is not None else {}
    card = ModelCard(
        metrics if options.metrics is None else options.metrics,
        found.get(RoundId(0), {}) if entry != RoundId(0) else {},
        options.description,
        options.header,
    )
    made.save_pretrained(options.folder, card)
    print(f"{options.folder}: ticket.safetensors, config.json and the model card README.md")
    if options.push is not None:
        print(made.push_to_hub(options.push, card, private=options.private or None))


def _print_ticket(shown: Ticket, path: Path, as_json: bool) -> None:
    summary, records = TicketSummary.of(shown), _records(path)
    if as_json:
        results = {str(entry): record.metrics for entry, record in records.items()}
        _print_json({"file": str(path), "bytes": path.stat().st_size, **summary.to_json(), "results": results})
    else:
        _print_text(ticket_text(summary, path, list(records.values())))


def _print_json(values: dict[str, Any]) -> None:
    print(json.dumps(values, indent=2))


def _print_text(text: str) -> None:
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = ascii_bars(text)
    print(text)


def _records(path: Path) -> dict[RoundId, RoundRecord]:
    """The records of a ticket's round and of round 0, if the file is in a run folder and they are finished."""
    folder, entry = RunFolder.of_ticket(path), RoundId.parse(path.stem)
    if folder is None or entry is None:
        return {}
    found = {record.id: record for record in folder.read_records()}
    return {wanted: found[wanted] for wanted in dict.fromkeys([entry, RoundId(0)]) if wanted in found}


_COMMANDS = {
    "show": Command("Shows a ticket: density, layers, where it comes from.", _add_show, _show),
    "compare": Command(
        "Compares two tickets: overlap of their masks, agreement of their signs.", _add_compare, _compare
    ),
    "convert": Command(
        "Makes a ticket file of a checkpoint, of masks of others, or of an older ticket file.",
        _add_convert,
        _convert,
    ),
    "hub": Command("Writes a folder for a model hub, with a model card, and may upload it.", _add_hub, _hub),
}
