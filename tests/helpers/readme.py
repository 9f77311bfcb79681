"""The code blocks of README."""

import re

from tests.helpers.scripts import ROOT

README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
