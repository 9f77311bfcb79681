"""Tickets, and what two tickets have in common, as text."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from lightning_lottery.analysis import Overlap, TicketOverlap
from lightning_lottery.plain import printable
from lightning_lottery.report.text import aligned
from lightning_lottery.report.words import bytes_text
from lightning_lottery.storage import RoundRecord
from lightning_lottery.tickets import TicketSummary

_EIGHTHS = " ▏▎▍▌▋▊▉█"


def ticket_text(summary: TicketSummary, path: Path, records: Sequence[RoundRecord] = ()) -> str:
    """A ticket file: its sizes, its layers with bars, and where it comes from.

    Args:
        summary: The numbers of the ticket.
        path: The file.
        records: The record of the ticket's round and that of the dense round, if they are known.
    """
    size = path.stat().st_size
    kind = f"control {printable(summary.branch)}" if summary.id.is_control else "ticket"
    short = ", for a search round" if summary.id.is_search else ""
    lines = [
        f"{printable(str(path))}: {kind} of round {summary.round}{short}, density {summary.density:.4f}",
        f"{summary.kept:,} of {summary.prunable:,} prunable weights survive; with biases, normalisation and "
        f"buffers, {summary.numbers_kept:,} of {summary.numbers:,} numbers.",
        f"{bytes_text(size)} on disk; the dense network has {bytes_text(summary.dense_bytes)}, "
        f"{summary.dense_bytes / size:.1f} times as much.",
        summary.meaning,
    ]
    found = {printable(name): printable(value) for name, value in summary.provenance.items()}
    found |= {"fingerprint": summary.fingerprint, "fingerprint of the masks": summary.masks_hash}
    parts = ["\n".join(lines), _layers(summary)]
    if records:
        parts.append("Results of its run:\n" + "\n".join(map(_result, records)))
    return "\n\n".join([*parts, "Where it comes from:\n" + _pairs(found)])


def overlap_text(found: TicketOverlap, first: str, second: str) -> str:
    """What two tickets have in common, in all layers and in each.

    Args:
        found: The comparison.
        first: What to call the first ticket.
        second: What to call the second ticket.
    """
    total, rows = found.total, [["layer", "prunable", "first", "second", "both", "IoU", "by chance"]]
    rows[0] += ["", "same sign", "by chance"]
    for name, layer in found.layers.items():
        rows.append([printable(name), *_cells(layer)])
    if len(found.layers) > 1:
        rows.append(["all layers", *_cells(total)])
    parts = [f"first: {printable(first)}\nsecond: {printable(second)}", aligned(rows, left={0, 7})]
    if found.left_out:
        parts.append("Not compared:\n" + _pairs({printable(n): why for n, why in found.left_out.items()}))
    return "\n\n".join([*parts, _OVERLAP_NOTE])


_OVERLAP_NOTE = """\
first, second, both: weights kept in these tickets. IoU: both / (first or second).
by chance: for random masks that keep as many weights in each layer, and for shuffled signs.
same sign: of the values of the weights kept in both."""


def _layers(summary: TicketSummary) -> str:
    rows = [["layer", "shape", "kept", "of", "density", ""]]
    for name, layer in summary.layers.items():
        shape = " x ".join(map(str, layer.shape))
        cells = [shape, f"{layer.kept:,}", f"{layer.prunable:,}", f"{layer.density:.4f}", bar(layer.density)]
        rows.append([printable(name) + ("" if layer.is_counted else " (follows)"), *cells])
    return aligned(rows, left={0, 5})


def _cells(layer: Overlap) -> list[str]:
    counts = [f"{number:,}" for number in (layer.prunable, layer.first, layer.second, layer.both)]
    signs = (layer.sign_agreement, layer.expected_sign_agreement)
    shares = ["-" if share is None else f"{100 * share:.1f} %" for share in signs]
    return [*counts, f"{layer.iou:.4f}", f"{layer.expected_iou:.4f}", bar(layer.iou, 10), *shares]


def bar(share: float, width: int = 20) -> str:
    """A share in [0, 1] as a bar of some characters. Any share above 0 is visible."""
    eighths = max(round(8 * width * share), 1 if share > 0 else 0)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(width, "·")


def ascii_bars(text: str) -> str:
    """Replaces the characters of bars, for terminals that lack them."""
    return text.translate({**dict.fromkeys(map(ord, _EIGHTHS[1:]), "#"), ord("·"): "."})


def _result(record: RoundRecord) -> str:
    values = ", ".join(f"{printable(name)} {value:.4f}" for name, value in record.metrics.items()) or "no metrics"
    best = "" if record.best_value is None else f"; best {record.best_value:.4f} at step {record.best_step}"
    steps = f"; after {record.steps} steps" if record.id.is_search else ""
    return f"  {record.id}: {values}{best}{steps}"


def _pairs(values: Mapping[str, str]) -> str:
    width = max(map(len, values), default=0)
    return "\n".join(f"  {name.ljust(width)}  {value}" for name, value in values.items())
