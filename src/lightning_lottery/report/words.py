"""What branches, metrics and densities are called in figures and on the page."""

import re
from typing import Any

from lightning_lottery.analysis import Question, Verdict
from lightning_lottery.tickets import SEARCH_BRANCH, TICKET_BRANCH

_BRANCHES = {
    TICKET_BRANCH: "tickets",
    SEARCH_BRANCH: "search rounds",
    "reinitialize": "random reinitialisation",
    "shuffle_mask": "shuffled mask",
    "random_mask": "random mask",
    "dense_again": "dense network again",
}


def branch_name(branch: str) -> str:
    """What a branch is called, in the terms of the papers."""
    return _BRANCHES.get(branch, branch.replace("_", " "))


def metric_name(question: Question) -> str:
    """What is measured, and when."""
    direction = " (lower is better)" if question.mode == "min" else ""
    return f"{question.metric}{direction}, {_moment(question)}"


def _moment(question: Question) -> str:
    """When the metric was measured."""
    if question.is_test:
        return f"test set, {'best' if question.at == 'best' else 'last'} weights"
    return "best of each training" if question.at == "best" else "end of training"


def base_name(verdict: Verdict) -> str:
    """What round 0 is called: a search may start from a ticket."""
    return round_0_name(verdict[0].density) if 0 in verdict else "dense network"


def round_0_name(density: float) -> str:
    """What round 0 is called, by its density."""
    return "starting ticket" if density < 1 else "dense network"


def percent(density: float) -> str:
    """A density such as ``21.6 %``."""
    return f"{100 * density:.3g} %"


def typeset(text: str) -> str:
    """A text with minus signs instead of hyphens, in which numbers are not broken into lines."""
    text = re.sub(r"(?<![\w.)-])-(?=\d| )", "\N{MINUS SIGN}", text)
    text = re.sub(r" (±) |(?<=\d) (%)", lambda part: part[0].replace(" ", "\N{NO-BREAK SPACE}"), text)
    return re.sub(r"\[[^\]]*\]", lambda part: part[0].replace(" ", "\N{NO-BREAK SPACE}"), text)


def value_text(value: Any) -> str:
    """A value of a configuration; empty for ``None``."""
    if value is None:
        return ""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def bytes_text(size: float) -> str:
    """A number of bytes, such as ``43.1 kB``."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.4g} {unit}"
        size /= 1000
    return f"{size:.4g} GB"
