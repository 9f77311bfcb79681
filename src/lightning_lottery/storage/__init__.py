"""The run folder with its records and tickets, and the state of a run in checkpoints and state files."""

from lightning_lottery.storage.channels import ChannelsState
from lightning_lottery.storage.cost import Cost
from lightning_lottery.storage.description import RunDescription
from lightning_lottery.storage.fit_state import (
    Average,
    DataMoment,
    DataStart,
    FitEnd,
    FitMoment,
    FitPoint,
    FitStart,
    GeneratorState,
    LastMetrics,
    LoaderRequest,
    MetricsMoment,
    NamedState,
    Optimization,
    SearchLength,
    StateDict,
)
from lightning_lottery.storage.flops import BatchFlops
from lightning_lottery.storage.folder import RunFolder
from lightning_lottery.storage.given import GivenTicket
from lightning_lottery.storage.kept import Beside, KeptState, KeptTicket
from lightning_lottery.storage.names import (
    CHANNELS,
    DESCRIPTION,
    LAST_TICKET,
    PICTURES,
    RECORDS,
    REPORT,
    REWIND_STATE,
    REWIND_WEIGHTS,
)
from lightning_lottery.storage.plain_values import to_plain
from lightning_lottery.storage.record import Curve, RoundRecord, is_better, rounding
from lightning_lottery.storage.records import Records, smallest_matching
from lightning_lottery.storage.replicate import Replicate, Runs
from lightning_lottery.storage.state import PendingPoint, RewindState, RunState, TrainedState
from lightning_lottery.storage.tested import RoundTest
from lightning_lottery.storage.tickets import Tickets

__all__ = [
    "CHANNELS",
    "DESCRIPTION",
    "LAST_TICKET",
    "PICTURES",
    "RECORDS",
    "REPORT",
    "REWIND_STATE",
    "REWIND_WEIGHTS",
    "Average",
    "BatchFlops",
    "Beside",
    "ChannelsState",
    "Cost",
    "Curve",
    "DataMoment",
    "DataStart",
    "FitEnd",
    "FitMoment",
    "FitPoint",
    "FitStart",
    "GeneratorState",
    "GivenTicket",
    "KeptState",
    "KeptTicket",
    "LastMetrics",
    "LoaderRequest",
    "MetricsMoment",
    "NamedState",
    "Optimization",
    "PendingPoint",
    "Records",
    "Replicate",
    "RewindState",
    "RoundRecord",
    "RoundTest",
    "RunDescription",
    "RunFolder",
    "RunState",
    "Runs",
    "SearchLength",
    "StateDict",
    "Tickets",
    "TrainedState",
    "is_better",
    "rounding",
    "smallest_matching",
    "to_plain",
]
