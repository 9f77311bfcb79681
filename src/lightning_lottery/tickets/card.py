"""The model card of a ticket: README.md with a YAML header, as model hubs show it."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import yaml

from lightning_lottery.errors import TicketError
from lightning_lottery.plain import make_plain, printable
from lightning_lottery.tickets.summary import TicketSummary

LIBRARY = "lightning-lottery"
_TAGS = ["lottery-ticket", "pruning", "sparsity", "pytorch", "lightning"]
_LISTS = ("tags", "datasets")


@dataclass(frozen=True)
class ModelCard:
    """What the model card of a ticket says beyond the ticket itself.

    Attributes:
        metrics: Results of the trained ticket by name, such as ``lottery.records[3].metrics``.
        dense_metrics: The same of the dense network, to compare with, such as ``lottery.records[0].metrics``.
        description: What the network is and does, in Markdown: its class and arguments, the data, where the
            metrics were measured.
        repo_id: The repository on a model hub, such as ``"user/name"``, for the code that loads the ticket.
        header: Further entries of the YAML header, such as ``{"license": "mit", "datasets": ["mnist"]}``. Tags
            are added to those of this package. If the ticket has trained values, and the header has one of
            ``datasets`` and a ``pipeline_tag``, such as ``"image-classification"``, then the metrics are also in
            the ``model-index`` that hubs evaluate.

    Raises:
        TicketError: A metric is not a number, a text is not a string, or the header is not a dictionary of
            plain values or has another ``library_name``.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    dense_metrics: Mapping[str, float] = field(default_factory=dict)
    description: str = ""
    repo_id: str = ""
    header: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        make_plain(self)
        for what in ("metrics", "dense_metrics"):
            _check_metrics(what, getattr(self, what))
        for what in ("description", "repo_id"):
            if not isinstance(text := getattr(self, what), str):
                raise TicketError(f"{what}={text!r:.200} must be a string.")
        _check_header(self.header)

    def to_markdown(self, summary: TicketSummary, name: str) -> str:
        """The model card.

        Args:
            summary: The numbers of the ticket.
            name: The name of the folder, to load it from unless there is a ``repo_id``.
        """
        header = yaml.safe_dump(self._header(summary, name), sort_keys=False, allow_unicode=True)
        parts = [f"# {_title(summary)}", *([self.description] if self.description else []), _about(summary)]
        parts += ["## Loading", _loading(summary, self.repo_id, name)]
        if self.metrics or self.dense_metrics:
            ours = "after training it" if summary.is_trained is False else "this ticket"
            parts += ["## Results", _results(self.metrics, self.dense_metrics, ours)]
        parts += ["## How it was found", _provenance(summary), "## Layers", _layers(summary)]
        return f"---\n{header}---\n\n" + "\n\n".join(parts) + "\n"

    def _header(self, summary: TicketSummary, name: str) -> dict[str, Any]:
        given = dict(self.header)
        tags = [*_TAGS, *(tag for tag in _listed(given.pop("tags", None)) if tag not in _TAGS)]
        header = {"library_name": LIBRARY, "tags": tags, "density": round(summary.density, 6)}
        if self.metrics:
            header["metrics"] = sorted(self.metrics)
        index = self._model_index(summary, self.repo_id or name)
        return {**header, **({} if index is None else {"model-index": index}), **given}

    def _model_index(self, summary: TicketSummary, name: str) -> list[dict[str, Any]] | None:
        """Results of these values in the form of hubs, which need a task and a data set."""
        datasets, task = _listed(self.header.get("datasets")), self.header.get("pipeline_tag")
        values = {metric: value for metric, value in self.metrics.items() if isfinite(value)}
        if summary.is_trained is False or len(datasets) != 1 or task is None or not values:
            return None
        metrics = [{"type": metric, "value": value, "name": metric} for metric, value in values.items()]
        dataset = {"type": datasets[0], "name": datasets[0]}
        return [{"name": name, "results": [{"task": {"type": task}, "dataset": dataset, "metrics": metrics}]}]


def _check_metrics(what: str, metrics: object) -> None:
    if not isinstance(metrics, Mapping):
        raise TicketError(f"{what}={metrics!r:.200} must be a dictionary of numbers, such as {{'val_acc': 0.93}}.")
    for name, value in metrics.items():
        if not isinstance(name, str) or not _is_number(value):
            raise TicketError(f"{what} has {name!r}: {value!r:.200}, but must have numbers by name.")


def _is_number(value: object) -> bool:
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) <= sys.float_info.max  # larger integers cannot become floats
    return isinstance(value, float)


def _check_header(header: object) -> None:
    if not isinstance(header, Mapping):
        raise TicketError(f"header={header!r:.200} must be a dictionary, such as {{'license': 'mit'}}.")
    if header.get("library_name", LIBRARY) != LIBRARY:
        raise TicketError(
            f"header has library_name={header['library_name']!r}, but only {LIBRARY} loads a ticket."
        )
    for name in _LISTS:
        entries = header.get(name)
        if not (entries is None or isinstance(entries, str) or all(isinstance(e, str) for e in _listed(entries))):
            raise TicketError(f"header has {name}={entries!r:.200}, which must be a list of strings.")
    try:
        yaml.safe_dump(dict(header))
    except yaml.YAMLError as error:
        raise TicketError(f"header={header!r:.200} must have plain values only: {error}") from error


def _listed(value: Any) -> list[Any]:
    if value is None or isinstance(value, str):
        return [] if value is None else [value]
    return list(value) if isinstance(value, Iterable) else [value]


def _title(summary: TicketSummary) -> str:
    percent = f"{100 * summary.density:.3g} % of the weights"
    if summary.id.is_control:
        return f"Control {code(summary.branch)} of a lottery ticket with {percent}"
    return f"Lottery ticket with {percent}" if summary.density < 1 else "A dense network"


def _about(summary: TicketSummary) -> str:
    numbers = f"{summary.numbers_kept:,} of {summary.numbers:,} numbers"
    return (
        f"**{summary.meaning}**\n\n{_kind(summary)} {summary.kept:,} of {summary.prunable:,} prunable "
        f"weights survive; with biases, normalisation and buffers, {numbers}. The mask saves "
        "space on the disk; it does not make the network faster."
    )


def _kind(summary: TicketSummary) -> str:
    if "rewind" not in summary.provenance:
        return "A pruned network, as a ticket of lightning-lottery."
    if summary.id.is_control:
        return "A control: a ticket of lightning-lottery with one thing deliberately wrong, to compare with."
    if summary.round == 0:
        return "The network before any pruning, as a ticket of lightning-lottery."
    return (
        "A sparse subnetwork, found with lightning-lottery by iterative pruning ([Frankle & Carbin "
        "2018](https://arxiv.org/abs/1803.03635))."
    )


def _loading(summary: TicketSummary, repo_id: str, name: str) -> str:
    where = "or a copy of this folder" if repo_id else "the path of this folder, or its repository on the hub"
    train = (
        "To train it with its mask held" if summary.is_trained is not False else "Then train it with its mask held"
    )
    return f"""\
With `pip install "lightning-lottery[hub]"`, and a `model` that has the layers listed below:

```python
from lightning_lottery import Ticket, TicketCallback

ticket = Ticket.from_pretrained({json.dumps(repo_id or name, ensure_ascii=False)})  # {where}
ticket.apply(model)  # copies the values in place; pruned weights become zero
```

{train}: `Trainer(callbacks=[TicketCallback(ticket)])`. The file `ticket.safetensors` contains no code."""


def _results(metrics: Mapping[str, float], dense: Mapping[str, float], ours: str) -> str:
    names = dict.fromkeys([*metrics, *dense])
    rows = [(code(name), _number(metrics.get(name)), _number(dense.get(name))) for name in names]
    return _table(("metric", ours, "dense network"), rows)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _provenance(summary: TicketSummary) -> str:
    rows = (
        [("round", str(summary.round)), ("branch", code(summary.branch))] if "rewind" in summary.provenance else []
    )
    rows += [(code(name), code(value)) for name, value in summary.provenance.items()]
    rows += [("fingerprint of masks and weights", code(summary.fingerprint))]
    return _table(("", ""), [*rows, ("fingerprint of the masks", code(summary.masks_hash))])


def _layers(summary: TicketSummary) -> str:
    rows = [
        (
            code(name) + ("" if layer.is_counted else " (follows, not counted in the density)"),
            _shape(layer.shape),
            f"{layer.kept:,}",
            f"{100 * layer.density:.3g} %",
        )
        for name, layer in summary.layers.items()
    ]
    rows += [(code(name), _shape(shape), "all", "no mask") for name, shape in summary.unmasked.items()]
    return _table(("parameter or buffer", "shape", "kept", "density"), rows)


def _shape(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "scalar"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, ["---"] * len(header), *rows])


def code(text: str) -> str:
    """A text from a file as inline code, in which nothing acts as Markdown."""
    shown = printable(text).replace("`", "'").replace("|", "\\|")
    return f"`{shown}`" if shown else ""
