"""The same experiment with several seeds: runs it, and reads its runs."""

from lightning_lottery.storage import Replicate
from lightning_lottery.study.engine import Engine, Processes, Workers
from lightning_lottery.study.experiments import experiments
from lightning_lottery.study.on_ray import Ray
from lightning_lottery.study.replicates import Replicates
from lightning_lottery.study.study import FIT_OPTIONS, VERDICT, Study

__all__ = [
    "FIT_OPTIONS",
    "VERDICT",
    "Engine",
    "Processes",
    "Ray",
    "Replicate",
    "Replicates",
    "Study",
    "Workers",
    "experiments",
]
