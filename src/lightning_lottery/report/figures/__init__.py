"""Figures of runs and studies."""

from lightning_lottery.report.figures.accuracy import accuracy, compared, overview
from lightning_lottery.report.figures.drawing import Drawing, can_draw
from lightning_lottery.report.figures.layers import first_layer, layers, spread
from lightning_lottery.report.figures.learning import control_curves, learning_curves, steps_to_dense
from lightning_lottery.report.figures.published import published

__all__ = [
    "Drawing",
    "accuracy",
    "can_draw",
    "compared",
    "control_curves",
    "first_layer",
    "layers",
    "learning_curves",
    "overview",
    "published",
    "spread",
    "steps_to_dense",
]
