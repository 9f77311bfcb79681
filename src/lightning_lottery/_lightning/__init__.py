"""Every touch of Lightning's internals: many trainings inside one ``Trainer.fit``.

Nothing else in the package uses a private name of Lightning. A comment at each touch says why; each was there in
the oldest supported version, 2.5.0, unless its comment names a later one.
"""

from lightning_lottery._lightning.fit import RoundsFit
from lightning_lottery._lightning.hooks import Hooks
from lightning_lottery._lightning.progress import validation_interval

__all__ = ["Hooks", "RoundsFit", "validation_interval"]
