"""Instances of criteria, scopes, patterns, rules and controls: at least one per concrete subclass."""

import inspect

from lightning_lottery import (
    ERK,
    SNIP,
    Block,
    Channels,
    Control,
    CoupledChannels,
    Criterion,
    DenseAgain,
    EarlyBird,
    FineTune,
    Global,
    GraSP,
    InitialTicket,
    KeepSign,
    LargeFinalSameSign,
    Layerwise,
    LearningRate,
    Magnitude,
    MagnitudeIncrease,
    Movement,
    NofM,
    Pattern,
    Random,
    RandomMask,
    Reinitialize,
    Rewind,
    Scope,
    ShuffleMask,
    SignOnly,
    Stop,
    SynFlow,
    Taylor,
    ToEpoch,
    ToInit,
    Tolerance,
    ToStep,
    Unstructured,
)

CRITERIA = [
    Magnitude(),
    Random(),
    Movement(),
    MagnitudeIncrease(),
    LargeFinalSameSign(),
    SNIP(),
    SNIP(batches=2),
    Taylor(batches=2),
    GraSP(),
    SynFlow(steps=3),
]
SCOPES = [
    Global(),
    Global(min_density=0.1),
    Global(min_density={"last": 0.5}, keep_alive=False),
    Layerwise(),
    Layerwise(layer_amounts={"last": 0.1}),
    ERK(),
    ERK(min_density=0.05),
]
PATTERNS = [Unstructured(), NofM(1, 2), NofM(2, 4), Channels(), Channels(norm=1, outputs=True), Block(2, 3)]
# Their units reach into several layers, so that they need a network.
COUPLED = [CoupledChannels(), CoupledChannels(norm=1, normalise=False)]
REWINDS = [
    ToInit(),
    ToStep(5),
    ToStep("1%", optimizer="fresh"),
    ToEpoch(1),
    LearningRate(),
    LearningRate("2 epochs"),
    FineTune(2, 0.1),
]
CONTROLS = [
    Reinitialize(),
    ShuffleMask(),
    RandomMask(),
    RandomMask(ERK()),
    KeepSign(),
    SignOnly(),
    DenseAgain(),
    InitialTicket(),
]
STOPS = [Tolerance(drop=0.01), EarlyBird(), EarlyBird(window=2, tolerance=0.0)]
BASES = {
    Criterion: CRITERIA,
    Scope: SCOPES,
    Pattern: [*PATTERNS, *COUPLED],
    Rewind: REWINDS,
    Control: CONTROLS,
    Stop: STOPS,
}


def subclasses(base: type) -> set[type]:
    """All classes that derive from a base, directly or not."""
    direct = set(base.__subclasses__())
    return direct.union(*(subclasses(kind) for kind in direct))


def concrete(base: type) -> set[type]:
    """The public classes of the package that derive from a base and can be instantiated."""
    return {
        kind
        for kind in subclasses(base)
        if kind.__module__.startswith("lightning_lottery.")
        and not inspect.isabstract(kind)
        and not kind.__name__.startswith("_")
    }
