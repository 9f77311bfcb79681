"""Records as lines of text and tables."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from lightning_lottery.storage import Cost, Records, RoundRecord
from lightning_lottery.tickets import RoundId


def progress(entry: RoundId, last_round: int, density: float) -> str:
    """The round and its density, for the progress bar."""
    branch = "" if entry.is_ticket else f" {entry.branch}"
    return f"{entry.number}/{last_round}{branch} · density {density:.3f}"


def line(record: RoundRecord, last_round: int, monitor: str | None) -> str:
    """One line about a finished round."""
    parts = [f"round {record.round}/{last_round}"]
    if not record.id.is_ticket:
        parts[0] += f" {record.branch}"
    parts.append(f"density {record.density:.4f}")
    if monitor is not None and record.best_value is not None:
        last = record.metrics.get(monitor)
        parts.append(f"{monitor} {'-' if last is None else f'{last:.4f}'}")
        parts.append(f"best {record.best_value:.4f} at step {record.best_step}")
    parts.append(f"{record.steps} steps in {record.seconds:.1f} s")
    return " · ".join(parts)


def scalars(
    record: RoundRecord, monitor: str | None, layer_densities: Mapping[str, float], cost: float | None = None
) -> dict[str, float]:
    """The values that loggers receive after a round, with separate names for tickets, search rounds and controls.

    Args:
        record: The record of the round.
        monitor: The name of the monitored metric.
        layer_densities: The density of each prunable parameter, by name.
        cost: What all trainings so far have cost together, in trainings of round 0; ``None`` if unknown.
    """
    group = "lottery" if record.id.is_ticket else f"lottery_{record.branch}"
    values: dict[str, float] = {f"{group}/density": record.density}
    if cost is not None:
        values[f"{group}/cost"] = cost
    if monitor is not None and monitor in record.metrics:
        values[f"{group}/{monitor}"] = record.metrics[monitor]
    if record.best_value is not None and record.best_step is not None:
        values |= {f"{group}/best_{monitor}": record.best_value, f"{group}/best_step": record.best_step}
    if record.id.is_ticket:
        values |= {f"lottery_layers/{name}": density for name, density in layer_densities.items()}
    return values


def table(records: Records, monitor: str | None) -> str:
    """All records as a text table: first the tickets, then the controls."""
    shown = monitor is not None and any(record.best_value is not None for record in records)
    header = ["round", "branch", "density", "kept"]
    header += [str(monitor), f"best {monitor}", "at step"] if shown else []
    rows = [[*header, "steps", "seconds"]]
    for record in records:
        row = [str(record.round), record.branch, f"{record.density:.4f}", f"{record.kept:,}"]
        if shown and monitor is not None:
            row += [_number(record.metrics.get(monitor)), _number(record.best_value)]
            row += ["-" if record.best_step is None else str(record.best_step)]
        rows.append([*row, str(record.steps), f"{record.seconds:.1f}"])
    return aligned(rows, left={1})


def cost_table(cost: Cost) -> str:
    """What a run cost, by branch and in all, as a text table."""
    rows = [["branch", "trainings", "FLOPs", "sparse FLOPs", "seconds"]]
    whole = {"all": cost} if len(cost.by_branch) > 1 else {}
    for branch, part in {**cost.by_branch, **whole}.items():
        numbers = (part.trainings, part.flops, part.sparse_flops, part.seconds)
        rows.append([branch, *("-" if number is None else f"{number:.2f}" for number in numbers)])
    return aligned(rows, left={0})


def aligned(rows: Sequence[Sequence[str]], left: Collection[int] = ()) -> str:
    """Rows as an aligned text table. The first row is the header. Columns in ``left`` are left-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if index in left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
