"""Tickets: masks with the weights to start from, their file, and masking and module state during training."""

from lightning_lottery.tickets.masking import Masking
from lightning_lottery.tickets.module_state import ModuleState, is_metric
from lightning_lottery.tickets.tensors import is_finite, put, values_of
from lightning_lottery.tickets.ticket import Ticket, dense_ticket, starting_values

__all__ = [
    "Masking",
    "ModuleState",
    "Ticket",
    "dense_ticket",
    "is_finite",
    "is_metric",
    "put",
    "starting_values",
    "values_of",
]
