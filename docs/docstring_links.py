"""Makes links of the roles in docstrings, such as :class:`SNIP`, when the pages are built."""

import re
from pathlib import Path
from typing import Any

import griffe

_PAGES = (path.read_text() for path in sorted(Path(__file__).parent.glob("reference/*.md")))
# What the reference documents, by its name: lightning_lottery.export.best by "best".
DOCUMENTED = {
    path.rpartition(".")[2]: path for page in _PAGES for path in re.findall(r"^::: (\S+)$", page, re.MULTILINE)
}
_ROLE = re.compile(r":(?:class|func|meth|mod|attr|exc):`~?([\w.]+)`")


class RolesToLinks(griffe.Extension):
    """Replaces roles by links to what the reference documents, and others by plain code."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Changes the docstring of a class, function, attribute or module."""
        if obj.docstring is not None:
            obj.docstring.value = _ROLE.sub(_link, obj.docstring.value)


def _link(role: re.Match[str]) -> str:
    name = role[1]
    head, _, member = name.partition(".")
    if head not in DOCUMENTED:
        return f"`{name}`"
    return f"[`{name}`][{'.'.join(filter(None, [DOCUMENTED[head], member]))}]"
