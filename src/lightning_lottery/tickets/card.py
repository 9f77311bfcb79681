"""The model card of a ticket: README.md with a YAML header, as model hubs show it."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import yaml

from lightning_lottery.errors import TicketError
from lightning_lottery.plain import make_plain
from lightning_lottery.tickets.round_id import TICKET_BRANCH
from lightning_lottery.tickets.summary import TicketSummary

LIBRARY = "lightning-lottery"
_TAGS = ["lottery-ticket", "pruning", "sparsity", "pytorch", "lightning"]


@dataclass(frozen=True)
class ModelCard:
    """What the model card of a ticket says beyond the ticket itself.

    Attributes:
        metrics: Results of the trained ticket by name, such as ``lottery.records[3].metrics``.
        dense_metrics: The same of the dense network, to compare with, such as ``lottery.records[0].metrics``.
        description: What the network is and does, in Markdown.
        header: Further entries of the YAML header, such as ``{"license": "mit", "datasets": ["mnist"]}``. Tags are
            added to those of this package. With one of ``datasets`` and a ``pipeline_tag``, such as
            ``"image-classification"``, the metrics are also in the ``model-index`` that hubs evaluate.

    Raises:
        TicketError: A metric is not a number, or the header is not a dictionary of plain values.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    dense_metrics: Mapping[str, float] = field(default_factory=dict)
    description: str = ""
    header: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        make_plain(self)
        for what in ("metrics", "dense_metrics"):
            _check_metrics(what, getattr(self, what))
        if not isinstance(self.header, Mapping):
            raise TicketError(f"header={self.header!r:.200} must be a dictionary, such as {{'license': 'mit'}}.")
        try:
            yaml.safe_dump(dict(self.header))
        except yaml.YAMLError as error:
            raise TicketError(f"header={self.header!r:.200} must have plain values only: {error}") from error

    def to_markdown(self, summary: TicketSummary, name: str) -> str:
        """The model card.

        Args:
            summary: The numbers of the ticket.
            name: What ``Ticket.from_pretrained`` is to be called with, such as ``"user/name"``.
        """
        header = yaml.safe_dump(self._header(summary, name), sort_keys=False, allow_unicode=True)
        parts = [f"# {_title(summary)}", *([self.description] if self.description else []), _about(summary)]
        parts += [_LOADING.format(name=json.dumps(name))]
        if self.metrics or self.dense_metrics:
            parts += ["## Results", _results(self.metrics, self.dense_metrics)]
        parts += ["## How it was found", _provenance(summary), "## Layers", _layers(summary)]
        return f"---\n{header}---\n\n" + "\n\n".join(parts) + "\n"

    def _header(self, summary: TicketSummary, name: str) -> dict[str, Any]:
        given = dict(self.header)
        tags = [*_TAGS, *(tag for tag in _listed(given.pop("tags", ())) if tag not in _TAGS)]
        header = {"library_name": LIBRARY, "tags": tags, "density": round(summary.density, 6)}
        if self.metrics:
            header["metrics"] = sorted(self.metrics)
        index = self._model_index(summary, name)
        return {**header, **({} if index is None else {"model-index": index}), **given}

    def _model_index(self, summary: TicketSummary, name: str) -> list[dict[str, Any]] | None:
        """Results in the form of hubs, which need a task and a data set."""
        datasets, task = _listed(self.header.get("datasets", ())), self.header.get("pipeline_tag")
        values = {metric: value for metric, value in self.metrics.items() if isfinite(value)}
        if len(datasets) != 1 or task is None or not values:
            return None
        metrics = [{"type": metric, "value": value, "name": metric} for metric, value in values.items()]
        dataset = {"type": datasets[0], "name": datasets[0]}
        return [{"name": name, "results": [{"task": {"type": task}, "dataset": dataset, "metrics": metrics}]}]


_LOADING = """\
## Loading

`pip install lightning-lottery`, then with a network that has the parameters listed below:

```python
from lightning_lottery import Ticket, TicketCallback

ticket = Ticket.from_pretrained({name})  # or a copy of this folder
ticket.apply(model)  # copies the values in place; pruned weights become zero
```

To train the network with its mask held, write `Trainer(callbacks=[TicketCallback(ticket)])`. The file
`ticket.safetensors` contains no code."""


def is_card(content: bytes) -> bool:
    """Whether a file is the model card of a ticket, rather than another README.md."""
    start, _, rest = content.partition(b"---\n")
    header = rest.partition(b"\n---\n")[0]
    try:
        return not start and bool(yaml.safe_load(header)["library_name"] == LIBRARY)
    except (yaml.YAMLError, LookupError, TypeError):
        return False


def _check_metrics(what: str, metrics: object) -> None:
    if not isinstance(metrics, Mapping):
        raise TicketError(f"{what}={metrics!r:.200} must be a dictionary of numbers, such as {{'val_acc': 0.93}}.")
    for name, value in metrics.items():
        if not isinstance(name, str) or isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TicketError(f"{what} has {name!r}: {value!r:.200}, but must have numbers by name.")


def _listed(value: Any) -> Sequence[Any]:
    return [value] if isinstance(value, str) else list(value)


def _title(summary: TicketSummary) -> str:
    is_ticket = summary.branch == TICKET_BRANCH
    kind = "Lottery ticket" if is_ticket else f"Control {code(summary.branch)} of a lottery ticket"
    return f"{kind} with {100 * summary.density:.3g} % of the weights"


def _about(summary: TicketSummary) -> str:
    how = (
        "A sparse subnetwork, found by iterative pruning ([Frankle & Carbin 2018](https://arxiv.org/abs/1803.03635))"
        if "rewind" in summary.provenance
        else "A pruned network"
    )
    return (
        f"{how}, with lightning-lottery. {summary.kept:,} of {summary.prunable:,} prunable weights survive; with "
        f"biases, normalisation and buffers, {summary.values_kept:,} of {summary.values:,} numbers. "
        f"{meaning_of_values(summary)}"
    )


def meaning_of_values(summary: TicketSummary) -> str:
    """Says whether the values of a ticket are those to start from, or those of a trained network."""
    if "weights" in summary.provenance:
        return f"The values are those of a network that was given to `Ticket.{summary.provenance['weights']}`."
    if "rewind" in summary.provenance:
        return (
            f"The values are those that its training starts from (round {summary.round}, rewound by "
            f"{code(summary.provenance['rewind'])}), not trained ones."
        )
    return "The values are those of the network that it was made from."


def _results(metrics: Mapping[str, float], dense: Mapping[str, float]) -> str:
    names = dict.fromkeys([*metrics, *dense])
    rows = [(name, _number(metrics.get(name)), _number(dense.get(name))) for name in names]
    return _table(("metric", "this ticket, trained", "dense network"), rows)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _provenance(summary: TicketSummary) -> str:
    rows = [("round", str(summary.round)), ("branch", code(summary.branch))]
    rows += [(code(name), code(value)) for name, value in summary.provenance.items()]
    rows += [("masks and weights", code(summary.fingerprint)), ("masks", code(summary.masks_hash))]
    return _table(("", ""), rows)


def _layers(summary: TicketSummary) -> str:
    rows = [
        (code(name), " x ".join(map(str, layer.shape)), f"{layer.kept:,}", f"{100 * layer.density:.3g} %")
        for name, layer in summary.layers.items()
    ]
    return _table(("parameter", "shape", "surviving", "density"), rows)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, ["---"] * len(header), *rows])


def code(text: str) -> str:
    """A text from a file as inline code, in which nothing acts as Markdown."""
    shown = printable(text).replace("`", "'").replace("|", "\\|")
    return f"`{shown}`"


def printable(text: str) -> str:
    """A text from a file, without characters that move the cursor or change colours."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
