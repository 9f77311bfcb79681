"""Mutes Lightning's messages in commands that print a line of their own for each training or test."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Mutes Lightning's messages, which would appear for every training or test."""
    with ExitStack() as stack:
        for name in ("lightning.pytorch", "lightning.fabric"):
            logger = logging.getLogger(name)
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.ERROR)
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", module=r"lightning\.")
        yield
