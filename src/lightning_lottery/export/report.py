"""What an exported network gains, measured on this machine."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from lightning_lottery.channels import copy_of, resized
from lightning_lottery.errors import ConfigurationError
from lightning_lottery.export.agreement import Expected
from lightning_lottery.export.dense import masked_and_example
from lightning_lottery.export.measure import Speedup
from lightning_lottery.export.measurement import Measurement, measure
from lightning_lottery.plain import check_integer, check_list, check_number
from lightning_lottery.report import aligned
from lightning_lottery.tickets import Ticket


@dataclass(frozen=True)
class ExportReport:
    """Exported networks beside the dense one. Printing it shows a table and a sentence.

    Attributes:
        forms: The networks in numbers, by form: ``"dense"``, the masked network with all its channels, comes
            first.
        kept: The form that was chosen.
        left_out: The forms that could not be made, or would gain nothing, each with the reason.
    """

    forms: Mapping[str, Measurement]
    kept: str
    left_out: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def measure(
        cls,
        model: nn.Module,
        ticket: Ticket | str | Path | None,
        exported: nn.Module,
        example: Any,
        batch_sizes: Sequence[int] = (1, 32),
        turns: int = 11,
        seconds: float = 0.1,
        form: str = "exported",
    ) -> "ExportReport":
        """Measures an exported network beside the network that it was made from, on the device that they are on.

        Args:
            model: The network.
            ticket: The ticket, or the path of its file; ``None`` for a network that needs no masks.
            exported: The result of :func:`compact`, :func:`sparse`, :func:`onnx` or :func:`dense`.
            example: Real inputs; see :func:`compact`. Their samples are repeated or left out for a batch size.
            batch_sizes: The batch sizes to time.
            turns: How many times each network is timed; they take turns.
            seconds: The least duration of a turn of one network.
            form: What to call the exported network in the table.

        Raises:
            ConfigurationError: An argument is invalid, or a network fails on the example or at a batch size.
            TicketError: The ticket does not fit the network.
        """
        check_timing(batch_sizes, turns, seconds)
        if not isinstance(exported, nn.Module):
            raise ConfigurationError(f"exported={exported!r:.99} is not a network. Write compact(...) first.")
        masked, example = masked_and_example(model, ticket, example)
        expected = Expected.of(masked, [resized(example, size) for size in batch_sizes])
        dense, made = measure([masked, copy_of(exported)], expected, example, batch_sizes, turns, seconds)
        if made.difference == math.inf:
            raise ConfigurationError(
                f"exported has outputs of other shapes than {type(model).__name__}, or NaN in other places. Pass "
                "the result of compact, sparse or onnx."
            )
        return cls({"dense": dense, form: made}, form)

    @property
    def dense(self) -> Measurement:
        """The masked network, with all its channels."""
        return next(iter(self.forms.values()))

    @property
    def exported(self) -> Measurement:
        """The network that was chosen."""
        return self.forms[self.kept]

    @property
    def speedup(self) -> Mapping[int, Speedup]:
        """By batch size, how many times faster than dense the chosen network is."""
        return self.exported.speedup

    @property
    def difference(self) -> float:
        """The largest difference of outputs of the chosen network, relative to the largest output."""
        return self.exported.difference

    @property
    def sentence(self) -> str:
        """What is gained, in one sentence."""
        if len(self.forms) == 1:
            if self.left_out:
                return "Nothing to gain: no other form is of use here."
            return "Nothing to gain: masks alone make a network neither smaller nor faster."
        if self.exported is self.dense:
            return "Nothing to gain: on this machine, no other form of the network is faster than the dense one."
        share = self.exported.parameters / self.dense.parameters if self.dense.parameters else 1.0
        size = f"has {share:.1%} of the parameters" if share < 1 else "has as many parameters"
        faster = {size: ratio for size, ratio in self.speedup.items() if ratio.is_faster}
        slower = {size: ratio for size, ratio in self.speedup.items() if ratio.is_slower}
        speed = "is " + _speeds(faster) if faster else "is not measurably faster here"
        but = f"; it is only {_speeds(slower)}" if slower else ""
        gain = "" if faster else "Nothing to gain in speed: " if share < 1 else "Nothing to gain: "
        the = "the" if gain else "The"
        return f"{gain}{the} {self.kept} network {size}, {'and' if faster else 'but'} {speed}{but}."

    def __str__(self) -> str:
        names = [f"{form} (kept)" if form == self.kept and len(self.forms) > 2 else form for form in self.forms]
        lines = [aligned([["", *names], *self._rows()], left={0}), self.sentence]
        lines += [f"Left out: {form}. {reason}" for form, reason in self.left_out.items()]
        return "\n\n".join([lines[0], "\n".join(lines[1:])])

    def _rows(self) -> Iterator[list[str]]:
        dense, forms = self.dense, list(self.forms.values())
        amounts = {
            "parameters": [form.parameters for form in forms],
            "bytes on disk": [form.bytes for form in forms],
            "FLOPs per sample": [form.flops for form in forms],
        }
        for name, (first, *others) in amounts.items():
            yield [name, f"{first:,}", *(f"{n:,} ({n / first:.1%})" if first else f"{n:,}" for n in others)]
        for size in dense.latency:
            yield [f"latency, batch size {size}", *(str(form.latency[size]) for form in forms)]
            if len(forms) > 1:
                yield ["  times as fast", "", *(str(form.speedup[size]) for form in forms[1:])]
        if len(forms) > 1:
            yield ["difference of outputs", "", *(f"{form.difference:.1g}" for form in forms[1:])]

    def to_json(self) -> dict[str, Any]:
        """All numbers as plain values for JSON."""
        return {
            "kept": self.kept,
            "sentence": self.sentence,
            "forms": {name: form.to_json() for name, form in self.forms.items()},
            "left_out": dict(self.left_out),
        }


def check_timing(batch_sizes: Sequence[int], turns: int, seconds: float) -> None:
    """Checks how networks are to be timed.

    Raises:
        ConfigurationError: An argument is invalid.
    """
    check_list("batch_sizes", batch_sizes, "batch_sizes=[1, 32]")
    if not batch_sizes:
        raise ConfigurationError("batch_sizes=[] times nothing. Write for example batch_sizes=[1, 32].")
    for size in batch_sizes:
        check_integer("batch_sizes", size, 1, "batch_sizes=[1, 32]")
    check_integer("turns", turns, 2, "turns=11")
    check_number("seconds", seconds, "above 0", "seconds=0.1")


def _speeds(ratios: Mapping[int, Speedup]) -> str:
    *parts, last = (f"{ratio.median:.1f} x as fast at batch size {size}" for size, ratio in ratios.items())
    return f"{', '.join(parts)} and {last}" if parts else last
