"""A ticket as a smaller or faster network, and what that gains on this machine.

These functions work on any network and ticket, without a Trainer or a callback.
"""

from lightning_lottery.export.best import best
from lightning_lottery.export.compact import compact
from lightning_lottery.export.dense import dense
from lightning_lottery.export.file import check_can_be_saved, save_network
from lightning_lottery.export.measure import Latency, Speedup
from lightning_lottery.export.measurement import Measurement
from lightning_lottery.export.onnx import onnx
from lightning_lottery.export.onnx_network import OnnxNetwork, require_onnx
from lightning_lottery.export.report import ExportReport
from lightning_lottery.export.sparse import sparse
from lightning_lottery.export.sparse_linear import SemiStructuredLinear, SparseLinear

__all__ = [
    "ExportReport",
    "Latency",
    "Measurement",
    "OnnxNetwork",
    "SemiStructuredLinear",
    "SparseLinear",
    "Speedup",
    "best",
    "check_can_be_saved",
    "compact",
    "dense",
    "onnx",
    "require_onnx",
    "save_network",
    "sparse",
]
