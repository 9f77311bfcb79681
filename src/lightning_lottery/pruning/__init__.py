"""Which weights are pruned: prunable parameters and their copies, criteria, scopes, patterns, sizes."""

from lightning_lottery.pruning.copies import GradientWatch, are_equal, find_copies
from lightning_lottery.pruning.coupled import CoupledChannels
from lightning_lottery.pruning.criteria import (
    Context,
    Criterion,
    Data,
    LargeFinalSameSign,
    Magnitude,
    MagnitudeIncrease,
    Movement,
    Random,
    criterion_of,
)
from lightning_lottery.pruning.gradient_criteria import SNIP, GraSP, SynFlow, Taylor
from lightning_lottery.pruning.kinds import Kind, has_normalisation, has_prunable_type, kinds_of, norms_by_name
from lightning_lottery.pruning.layers import Layer, layers_of
from lightning_lottery.pruning.method import Method, Pruner, check_scores
from lightning_lottery.pruning.norms import emptied_norms, largest
from lightning_lottery.pruning.patterns import Block, Channels, NofM, Unstructured, pattern_of
from lightning_lottery.pruning.prunable import Selection, check_and_select, check_not_lazy, names_matching
from lightning_lottery.pruning.scopes import ERK, Global, Layerwise, Pool, Scope, scope_of
from lightning_lottery.pruning.sizes import Sizes
from lightning_lottery.pruning.units import Pattern

__all__ = [
    "ERK",
    "SNIP",
    "Block",
    "Channels",
    "Context",
    "CoupledChannels",
    "Criterion",
    "Data",
    "Global",
    "GraSP",
    "GradientWatch",
    "Kind",
    "LargeFinalSameSign",
    "Layer",
    "Layerwise",
    "Magnitude",
    "MagnitudeIncrease",
    "Method",
    "Movement",
    "NofM",
    "Pattern",
    "Pool",
    "Pruner",
    "Random",
    "Scope",
    "Selection",
    "Sizes",
    "SynFlow",
    "Taylor",
    "Unstructured",
    "are_equal",
    "check_and_select",
    "check_not_lazy",
    "check_scores",
    "criterion_of",
    "emptied_norms",
    "find_copies",
    "has_normalisation",
    "has_prunable_type",
    "kinds_of",
    "largest",
    "layers_of",
    "names_matching",
    "norms_by_name",
    "pattern_of",
    "scope_of",
]
