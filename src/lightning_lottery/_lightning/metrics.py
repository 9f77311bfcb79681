"""The metrics of a Trainer: saving and restoring them, also in another process."""

from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.connectors.logger_connector.result import _Metadata, _ResultMetric, _Sync
from torch import Tensor

_KINDS = ("_callback_metrics", "_logged_metrics", "_progress_bar_metrics")
_META = ("fx", "name", "prog_bar", "logger", "on_step", "on_epoch", "enable_graph", "add_dataloader_idx",
         "dataloader_idx", "metric_attribute")  # fmt: skip
_REDUCTIONS: dict[str, Any] = {"mean": torch.mean, "sum": torch.sum, "min": torch.min, "max": torch.max}


def capture(trainer: Trainer) -> dict[str, Any]:
    """The last values of all metrics, and the averages over the epoch so far, as plain values."""
    # Lightning has no public attribute for the averages over the epoch.
    results = trainer.fit_loop.epoch_loop._results.items()
    averages = {key: _plain(metric) for key, metric in results if not metric.has_reset and _can_be_kept(metric)}
    return {"last": keep(trainer), "averages": averages}


def restore(trainer: Trainer, state: dict[str, Any]) -> None:
    """Restores the result of :func:`capture`."""
    _put(trainer, state["last"])
    for key, values in state["averages"].items():
        trainer.fit_loop.epoch_loop._results[key] = _result(trainer, values)


def settle(trainer: Trainer) -> None:
    """Continues averages in the middle of an epoch, and resets them between epochs. Settle the loops first."""
    epochs: Any = trainer.fit_loop.epoch_progress.current
    if epochs.processed < epochs.ready:
        trainer._logger_connector._first_loop_iter = False  # a first batch resets the averages
    else:
        trainer._logger_connector.reset_results()


def keep(trainer: Trainer) -> dict[str, dict[str, Any]]:
    """The last values of all metrics."""
    return {kind: dict(getattr(trainer, kind[1:])) for kind in _KINDS}


def restore_last_values(trainer: Trainer, metrics: dict[str, dict[str, Any]]) -> None:
    """Restores the result of :func:`keep`."""
    trainer._logger_connector.reset_results()
    _put(trainer, metrics)


def _put(trainer: Trainer, metrics: dict[str, dict[str, Any]]) -> None:
    # There is no public way to set the three kinds of metrics.
    for kind, values in metrics.items():
        setattr(trainer._logger_connector, kind, dict(values))


def _can_be_kept(metric: _ResultMetric) -> bool:
    """Whether the average of a metric over the epoch can be saved, and rebuilt in another process."""
    meta = metric.meta
    if metric.is_tensor:
        return meta.on_epoch and meta.sync.group is None and meta.reduce_fx in _REDUCTIONS.values()
    return meta.on_epoch and meta.metric_attribute is not None


def _plain(metric: _ResultMetric) -> dict[str, Any]:
    values = {name: getattr(metric.meta, name) for name in _META}
    values |= {"should": metric.meta.sync.should, "rank_zero_only": metric.meta.sync.rank_zero_only}
    if metric.is_tensor:
        values["reduction"] = metric.meta.reduce_fx.__name__
        states = ("value", "cumulated_batch_size", "_forward_cache")
        values["states"] = {n: s.clone() for n in states if isinstance(s := getattr(metric, n, None), Tensor)}
    return values


def _result(trainer: Trainer, values: dict[str, Any]) -> _ResultMetric:
    # As LightningModule.log does for the first value.
    meta = _Metadata(
        **{name: values[name] for name in _META}, reduce_fx=_REDUCTIONS[values.get("reduction", "mean")]
    )
    meta.sync = _Sync(
        fn=trainer.strategy.reduce, _should=values["should"], rank_zero_only=values["rank_zero_only"], _group=None
    )
    metric = _ResultMetric(meta, is_tensor="states" in values).to(trainer.strategy.root_device)
    if metric.is_tensor:
        for name, state in values["states"].items():
            setattr(metric, name, state.to(trainer.strategy.root_device))
        metric._update_count = 1  # otherwise compute() warns that there was no update
    else:
        metric.value = trainer.lightning_module.get_submodule(values["metric_attribute"])
    return metric
