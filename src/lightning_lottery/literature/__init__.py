"""Papers, and the numbers that their authors have published."""

from lightning_lottery.literature.papers import Paper, papers
from lightning_lottery.literature.published import Pruning, Published, PublishedValue, look_up, published

__all__ = ["Paper", "Pruning", "Published", "PublishedValue", "look_up", "papers", "published"]
