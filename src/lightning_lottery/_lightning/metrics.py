"""The metrics of a Trainer: saving and restoring them, also in another process."""

from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.connectors.logger_connector.result import _Metadata, _ResultMetric, _Sync
from torch import Tensor

from lightning_lottery.storage import Average, LastMetrics, MetricsMoment

_META = ("fx", "name", "prog_bar", "logger", "on_step", "on_epoch", "enable_graph", "add_dataloader_idx",
         "dataloader_idx", "metric_attribute")  # fmt: skip
_REDUCTIONS: dict[str, Any] = {"mean": torch.mean, "sum": torch.sum, "min": torch.min, "max": torch.max}


def capture(trainer: Trainer) -> MetricsMoment:
    """The last values of all metrics, and the averages over the epoch so far."""
    # Lightning has no public attribute for the averages over the epoch.
    results = trainer.fit_loop.epoch_loop._results.items()
    averages = {key: _average(metric) for key, metric in results if not metric.has_reset and _can_be_kept(metric)}
    return MetricsMoment(last_values(trainer), averages)


def restore(trainer: Trainer, state: MetricsMoment) -> None:
    """Restores the result of :func:`capture`."""
    _put(trainer, state.last)
    for key, average in state.averages.items():
        trainer.fit_loop.epoch_loop._results[key] = _result(trainer, average)


def settle(trainer: Trainer) -> None:
    """Continues averages in the middle of an epoch, and resets them between epochs. Settle the loops first."""
    epochs: Any = trainer.fit_loop.epoch_progress.current
    if epochs.processed < epochs.ready:
        trainer._logger_connector._first_loop_iter = False  # a first batch resets the averages
    else:
        trainer._logger_connector.reset_results()


def last_values(trainer: Trainer) -> LastMetrics:
    """The last values of all metrics."""
    return LastMetrics(
        callback=dict(trainer.callback_metrics),
        logged=dict(trainer.logged_metrics),
        progress_bar=dict(trainer.progress_bar_metrics),
    )


def restore_last_values(trainer: Trainer, metrics: LastMetrics) -> None:
    """Restores the result of :func:`last_values`."""
    trainer._logger_connector.reset_results()
    _put(trainer, metrics)


def _put(trainer: Trainer, metrics: LastMetrics) -> None:
    # Lightning has no public way to set them.
    connector = trainer._logger_connector
    connector._callback_metrics = dict(metrics.callback)
    connector._logged_metrics = dict(metrics.logged)
    connector._progress_bar_metrics = dict(metrics.progress_bar)


def _can_be_kept(metric: _ResultMetric) -> bool:
    """Whether the average of a metric over the epoch can be saved, and rebuilt in another process."""
    meta = metric.meta
    if metric.is_tensor:
        return meta.on_epoch and meta.sync.group is None and meta.reduce_fx in _REDUCTIONS.values()
    return meta.on_epoch and meta.metric_attribute is not None


def _average(metric: _ResultMetric) -> Average:
    meta, sync = metric.meta, metric.meta.sync
    average = Average(
        **{name: getattr(meta, name) for name in _META}, should=sync.should, rank_zero_only=sync.rank_zero_only
    )
    if not metric.is_tensor:
        return average
    names = ("value", "cumulated_batch_size", "_forward_cache")
    states = {n: state.clone() for n in names if isinstance(state := getattr(metric, n, None), Tensor)}
    return replace(average, reduction=meta.reduce_fx.__name__, states=states)


def _result(trainer: Trainer, average: Average) -> _ResultMetric:
    # As LightningModule.log does for the first value.
    meta = _Metadata(**{name: getattr(average, name) for name in _META}, reduce_fx=_REDUCTIONS[average.reduction])
    meta.sync = _Sync(
        fn=trainer.strategy.reduce, _should=average.should, rank_zero_only=average.rank_zero_only, _group=None
    )
    metric = _ResultMetric(meta, is_tensor=average.states is not None).to(trainer.strategy.root_device)
    if average.states is not None:
        for name, state in average.states.items():
            setattr(metric, name, state.to(trainer.strategy.root_device))
        metric._update_count = 1  # otherwise compute() warns that there was no update
    else:
        metric.value = trainer.lightning_module.get_submodule(str(average.metric_attribute))
    return metric
