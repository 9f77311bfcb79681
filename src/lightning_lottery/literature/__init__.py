"""Papers, and the numbers that their authors have published."""

from lightning_lottery.literature.papers import Paper, papers, trainings_text
from lightning_lottery.literature.published import Pruning, Published, PublishedValue, find_published, published

__all__ = [
    "Paper",
    "Pruning",
    "Published",
    "PublishedValue",
    "find_published",
    "papers",
    "published",
    "trainings_text",
]
