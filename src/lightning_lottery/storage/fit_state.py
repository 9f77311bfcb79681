"""The state of a fit that a checkpoint of Lightning does not contain: data, generators, metrics, callbacks.

``_lightning`` fills these classes and restores the fit from them. The dictionaries inside are state dicts of
Lightning, PyTorch and other callbacks.
"""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from lightning_lottery.storage.plain_values import KEY

StateDict = dict[str, Any]


@dataclass(frozen=True)
class GeneratorState:
    """The state of all random generators at one moment.

    Attributes:
        common: The global generators: Python, NumPy, PyTorch, CUDA.
        own: The generators of data loaders, by name.
    """

    common: StateDict = field(default_factory=dict)
    own: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class LoaderRequest:
    """The moment when data loaders were last requested.

    Attributes:
        randomness: The global generators before the request, and the loaders' own generators after it.
        epoch: The epoch that Lightning stores to decide when to reload.
    """

    randomness: GeneratorState
    epoch: float


@dataclass(frozen=True)
class DataStart:
    """What every round needs to load its data like the first one.

    Attributes:
        before_loading: The generators before the training loaders were requested.
        after_loading: The generators after the data were set up.
        val: The request of the validation loaders in the sanity check; ``None`` without one.
        seed: The seed of the samplers that Lightning creates for several processes.
    """

    before_loading: GeneratorState
    after_loading: GeneratorState
    val: LoaderRequest | None
    seed: str | None


@dataclass(frozen=True)
class DataMoment:
    """A position in the data.

    Attributes:
        train: The last request of the training loaders.
        fetching: The generators before the first batch of the epoch, which also draws random numbers.
        now: The generators at this position.
        val: The last request of the validation loaders, if any.
        iterator: The generators before the epoch created its iterator; ``None`` if setting up the data created it.
    """

    train: LoaderRequest
    fetching: GeneratorState
    now: GeneratorState
    val: LoaderRequest | None = None
    iterator: GeneratorState | None = None


@dataclass(frozen=True)
class LastMetrics:
    """The last values of all metrics, in Lightning's three groups."""

    callback: StateDict = field(metadata={KEY: "_callback_metrics"})
    logged: StateDict = field(metadata={KEY: "_logged_metrics"})
    progress_bar: StateDict = field(metadata={KEY: "_progress_bar_metrics"})


@dataclass(frozen=True)
class Average:
    """An average over the epoch so far, as Lightning keeps it for one logged metric.

    Attributes:
        should: Whether it is averaged over processes.
        reduction: How its values are combined: ``"mean"``, ``"sum"``, ``"min"`` or ``"max"``.
        states: The tensors of the average; ``None`` for a metric of torchmetrics, which the network holds.

    The other attributes are those of Lightning's metadata.
    """

    fx: str
    name: str
    prog_bar: bool
    logger: bool
    on_step: bool
    on_epoch: bool
    enable_graph: bool
    add_dataloader_idx: bool
    dataloader_idx: int | None
    metric_attribute: str | None
    should: bool
    rank_zero_only: bool
    reduction: str = "mean"
    states: dict[str, Tensor] | None = None


@dataclass(frozen=True)
class MetricsMoment:
    """The last values of all metrics, and the averages over the epoch so far."""

    last: LastMetrics
    averages: dict[str, Average]


@dataclass(frozen=True)
class NamedState:
    """The state of another callback or of the data module.

    Attributes:
        name: A name that identifies it in another process.
        state: Its state; ``None`` if it has none at this point.
    """

    name: str
    state: StateDict | None


@dataclass(frozen=True)
class Optimization:
    """The state of loops, optimizers, schedulers and the scale of 16-bit gradients."""

    loops: StateDict
    optimizers: list[StateDict]
    schedulers: list[StateDict]
    precision: StateDict


@dataclass(frozen=True)
class FitStart:
    """The state of a fit that every round starts from.

    Attributes:
        memories: Other callbacks and the data module.
        data: What is needed to load the data, by process.
        optimization: Optimizers and schedulers as ``configure_optimizers`` first returned them.
        precision: The precision plugin.
    """

    memories: list[NamedState]
    data: list[DataStart]
    optimization: list[StateDict]
    precision: StateDict


@dataclass(frozen=True)
class SearchLength:
    """The length of a search round, from where it starts.

    Attributes:
        amount: The number of optimizer steps, at least 1.
        steps_per_epoch: The optimizer steps of an epoch; ``None`` if unknown.
        in_epochs: Whether ``amount`` is a number of epochs, whose steps are unknown.
    """

    amount: int
    steps_per_epoch: int | None = None
    in_epochs: bool = False


@dataclass(frozen=True)
class FitPoint:
    """The state of a fit at a later rewind point.

    Attributes:
        optimization: Loops, optimizers, schedulers.
        memories: Other callbacks and the data module.
        metrics: The last values of all metrics.
        data: The position in the data, by process.
        step: The Trainer's ``global_step``.
        epochs: The number of complete epochs.
    """

    optimization: Optimization
    memories: list[NamedState]
    metrics: LastMetrics
    data: list[DataMoment]
    step: int = 0
    epochs: int = 0


@dataclass(frozen=True)
class FitMoment:
    """The state of a fit that is missing in Lightning's checkpoints to resume bit for bit.

    Attributes:
        is_exact: Whether the checkpoint was written between two batches.
        data: The position in the data, by process; only that of this process unless ``is_exact``.
        metrics: The metrics.
        gradients: Gradients that the next backward pass adds to, by parameter.
        should_stop: Whether the training was about to stop.
        checkpoints: The states of checkpoint callbacks in this round.
        first_step: The Trainer's ``global_step`` when the round began.
        first_batch: The number of batches that were complete when the round began.
    """

    is_exact: bool
    data: list[DataMoment]
    metrics: MetricsMoment
    gradients: dict[str, Tensor]
    should_stop: bool
    checkpoints: list[NamedState]
    first_step: int
    first_batch: int = 0


@dataclass(frozen=True)
class FitEnd:
    """Checkpoint callbacks and metrics after the last ticket."""

    checkpoints: list[NamedState]
    metrics: LastMetrics
