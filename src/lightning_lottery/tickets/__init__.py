"""Tickets: masks with the weights to start from, their file, and masking and module state during training."""

from lightning_lottery.tickets.card import ModelCard
from lightning_lottery.tickets.dense import dense_ticket
from lightning_lottery.tickets.file import StoredWeights, read_mask
from lightning_lottery.tickets.masking import Masking, masked_parameters
from lightning_lottery.tickets.module_state import ModuleState, is_metric
from lightning_lottery.tickets.network import check_is_network, starting_values, tensors_of
from lightning_lottery.tickets.open_file import is_ticket_file
from lightning_lottery.tickets.provenance import structure_of
from lightning_lottery.tickets.round_id import SEARCH_BRANCH, TICKET_BRANCH, RoundId
from lightning_lottery.tickets.summary import TicketSummary
from lightning_lottery.tickets.tensors import is_finite, moved_like, put, values_of
from lightning_lottery.tickets.ticket import Ticket, Transfer

__all__ = [
    "SEARCH_BRANCH",
    "TICKET_BRANCH",
    "Masking",
    "ModelCard",
    "ModuleState",
    "RoundId",
    "StoredWeights",
    "Ticket",
    "TicketSummary",
    "Transfer",
    "check_is_network",
    "dense_ticket",
    "is_finite",
    "is_metric",
    "is_ticket_file",
    "masked_parameters",
    "moved_like",
    "put",
    "read_mask",
    "starting_values",
    "structure_of",
    "tensors_of",
    "values_of",
]
