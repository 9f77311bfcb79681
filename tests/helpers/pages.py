"""The code blocks of README and of the pages in docs/."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from tests.helpers.fits import loaders, two_layers
from tests.helpers.scripts import ROOT

DOCS = ROOT / "docs"
README = ROOT / "README.md"


@dataclass(frozen=True)
class Page:
    """A page of Markdown.

    Attributes:
        path: Its file.
    """

    path: Path

    @property
    def text(self) -> str:
        return self.path.read_text()

    def blocks(self, language: str) -> list[str]:
        """The code blocks in a language, in order."""
        return re.findall(rf"```{language}\n(.*?)```", self.text, re.DOTALL)

    def commands(self) -> list[list[str]]:
        """The words of all commands of the package in the shell blocks, without its name."""
        blocks = [block for block in self.blocks("sh") if block.startswith("lightning-lottery ")]
        lines = "".join(blocks).splitlines()
        assert all(line.startswith("lightning-lottery ") for line in lines), "other commands need their own block"
        return [shlex.split(line)[1:] for line in lines]

    def other_scripts(self) -> list[str]:
        """The shell blocks that do not begin with a command of the package."""
        return [block for block in self.blocks("sh") if not block.startswith("lightning-lottery ")]


def page(name: str) -> Page:
    """A page of docs/, such as ``"how-to/sizes"``; or ``"README"``."""
    return Page(README if name == "README" else DOCS / f"{name}.md")


def value_and_comment(block: str) -> tuple[str, str]:
    """The value of the last line of a block, an expression, as Python shows it; and the comment behind it."""
    *lines, last = block.strip().splitlines()
    names: dict[str, Any] = {}
    exec("\n".join(lines), names)
    expression, _, comment = last.partition("  # ")
    return repr(eval(expression, names)), comment


@dataclass
class Reader:
    """Runs blocks one after the other, as a reader would type them, with short fits of a small network.

    Attributes:
        digits: Images and labels.
        names: What the blocks can use, and have made.
    """

    digits: tuple[Tensor, Tensor]
    names: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        train, val = loaders(self.digits)
        self.names = {"model": two_layers(), "train": train, "val": val, **self.names}

    def run(self, code: str) -> Mapping[str, Any]:
        """Runs a block, and returns all names."""
        short = code.replace("datamodule=data", "train, val")
        exec(short.replace("max_epochs=10", "max_epochs=1, accelerator='cpu'"), self.names)
        return self.names
