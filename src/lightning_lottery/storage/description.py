"""The description of a run: the content of ``lottery.json``."""

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from lightning_lottery.storage.flops import BatchFlops


@dataclass(frozen=True)
class RunDescription:
    """What a run trains, and how. A run resumes only if its description is the same.

    Attributes:
        arguments: The arguments of the callback that influence the result.
        trainer: The properties of the Trainer that do.
        prunable: The shape of every prunable parameter, by name.
        copies: For each copy of a trained weight, the name of its original.
        structure: A fingerprint of the network's parameters and buffers.
        hyperparameters: The LightningModule's hyperparameters, described.
        seed_everything: The seed that ``seed_everything`` was called with, if any.
        run: The id of the run, which its checkpoints refer to.
        counts: The number of units that each round keeps.
        plan: The names of all trainings in order, without those that stop rules have made superfluous. Empty in
            runs of older versions.
        input_shape: The shape of the first tensor in a training batch, without the first dimension; ``None`` until
            a batch was trained.
        environment: The classes of the LightningModule and of the LightningDataModule, if there is one, the device
            and the version of Python. Runs of older versions lack some.
        command: The command that has started the run, if there was one; empty in runs of older versions.
        flops: The floating-point operations of one batch; ``None`` until a batch was trained.
        provenance: How the tickets are found: criterion, scope, pattern, rewind, seed, versions.
    """

    arguments: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] = field(default_factory=dict)
    prunable: dict[str, list[int]] = field(default_factory=dict)
    copies: dict[str, str | None] = field(default_factory=dict)
    structure: str = ""
    hyperparameters: dict[str, str] = field(default_factory=dict)
    seed_everything: str | None = None
    run: str = ""
    counts: list[int] = field(default_factory=list)
    plan: list[str] = field(default_factory=list)
    input_shape: list[int] | None = None
    environment: dict[str, str] = field(default_factory=dict)
    command: str = ""
    flops: BatchFlops | None = None
    provenance: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The values in ``lottery.json``, with the id first and the provenance among the others."""
        values = asdict(self)
        provenance = values.pop("provenance")
        return {"run": values.pop("run"), **values, **provenance, "structure": self.structure}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "RunDescription":
        """Undoes :meth:`to_json`. Run folders of older versions lack some values."""
        known = {entry.name for entry in fields(cls)} - {"provenance"}
        named = {name: value for name, value in values.items() if name in known}
        if named.get("flops") is not None:
            named["flops"] = BatchFlops(**named["flops"])
        return cls(**named, provenance={n: str(value) for n, value in values.items() if n not in known})
