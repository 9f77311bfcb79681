"""Messages to the user, shown once: by process 0 if several processes train together."""

import warnings

from lightning_utilities.core.rank_zero import rank_zero_only  # Lightning sets its rank attribute


def warn(message: str) -> None:
    """Warns on process 0, with the caller's caller as the location."""
    if _is_first():
        warnings.warn(message, stacklevel=3)


def say(text: str) -> None:
    """Prints on process 0."""
    if _is_first():
        print(text, flush=True)


def _is_first() -> bool:
    return getattr(rank_zero_only, "rank", 0) == 0
