"""Prints text and JSON."""

import json
import sys
from typing import Any

from lightning_lottery.report import ascii_bars


def print_json(values: dict[str, Any]) -> None:
    """Prints JSON, for scripts."""
    print(json.dumps(values, indent=2, allow_nan=False))


def print_text(text: str) -> None:
    """Prints text, with other characters for bars if the terminal lacks them."""
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = ascii_bars(text)
    print(text)
