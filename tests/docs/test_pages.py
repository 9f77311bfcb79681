"""Every page has its tests; the site builds; the reference is complete; README leads to pages that exist."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import lightning_lottery
from lightning_lottery.cli import main
from tests.helpers.fits import needs
from tests.helpers.pages import DOCS, README, Page, page
from tests.helpers.scripts import ROOT

# Prose, output and templates; all other blocks are code.
NOT_RUN = {"text", "markdown"}
PAGES = sorted(str(path.relative_to(DOCS).with_suffix("")) for path in DOCS.rglob("*.md"))
# Blocks that a test reads for several pages at once, by a variable in place of the name.
READ_IN_LOOPS = {
    *((name, "python") for name in ("README", "index")),
    *(
        (f"how-to/{name}", "python")
        for name in ("sizes", "criteria", "scopes", "patterns", "controls", "stopping")
    ),
}
TESTS = [path.read_text() for path in Path(__file__).parent.glob("test_*.py") if path.name != Path(__file__).name]


def languages(text):
    return set(re.findall(r"^ *```(\S+)$", text, re.M)) - NOT_RUN


@pytest.mark.parametrize("name", ["README", *PAGES])
def test_code_of_every_language_on_a_page_has_a_test(name):
    used = languages(page(name).text)
    assert used <= {"python", "sh", "yaml"}, "languages that tests can run"
    text = "\n".join(TESTS).replace("PAGE.", 'page("experiments").')
    for language in used - {"sh"}:
        is_read = f'page("{name}").blocks("{language}")' in text
        assert is_read or (name, language) in READ_IN_LOOPS, f"no test runs the {language}"
    if page(name).other_scripts():
        assert re.search(rf'page\("{name}"\)\.(other_scripts|blocks\("sh"\))', text), "no test runs its scripts"
    if page(name).commands():
        assert f'page("{name}").commands()' in text, "no test runs its commands"


def test_fences_are_closed_and_have_a_language():
    for path in [README, *DOCS.rglob("*.md")]:
        fences = re.findall(r"^ *```(.*)$", path.read_text(), re.M)
        assert all(fences[::2]), path
        assert not any(fences[1::2]), path


def test_links_of_readme_lead_to_files():
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", README.read_text())
    local = [link for link in links if not link.startswith("https://")]
    assert len(local) > 10
    assert all((ROOT / link).exists() for link in local)


def test_the_reference_has_every_public_name_once():
    text = "\n".join(path.read_text() for path in DOCS.glob("reference/*.md"))
    named = re.findall(r"^::: (\S+)$", text, re.M)
    assert len(named) == len(set(named))
    assert {f"lightning_lottery.{name}" for name in lightning_lottery.__all__} <= set(named)
    for name in named:
        # A function in a file of its own name has a longer name than users import.
        parts = list(dict.fromkeys(name.split(".")))
        assert hasattr(importlib.import_module(".".join(parts[:-1])), parts[-1]), name


def test_the_command_line_page_has_every_command(capsys):
    table = re.findall(r"^\| (`.*?) \|", page("reference/command-line").text, re.M)
    shown = {name for row in table for name in re.findall(r"`([a-z ]+)`", row)}
    expected = set()
    for parent in ("", "analyse", "ticket"):
        with pytest.raises(SystemExit):
            main([*parent.split(), "--help"])
        (listed,) = re.findall(r"\{([a-z,]+)\}", capsys.readouterr().out.split("options:")[0])
        expected |= {f"{parent} {name}".strip() for name in listed.split(",")}
    assert shown == expected - {"analyse", "ticket"}


def test_every_page_is_in_the_navigation():
    def pages(entries):
        for entry in entries:
            for value in [entry] if isinstance(entry, str) else entry.values():
                yield from pages(value) if isinstance(value, list) else [value]

    listed = list(pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert sorted(name.removesuffix(".md") for name in listed if name.endswith(".md")) == PAGES
    assert "tutorial.ipynb" in listed


@pytest.mark.slow
def test_the_site_builds_strictly(tmp_path):
    """Without a broken link, an unknown reference, or a docstring that cannot be read."""
    needs("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    shown = Page(tmp_path / "reference" / "criteria" / "index.html").text
    assert "arXiv:1810.02340" in shown
    for name in ("callbacks", "tickets", "exports"):
        shown += Page(tmp_path / "reference" / name / "index.html").text
    assert all(
        f">{name}<" in shown for name in ("records", "smallest_matching", "resume", "density", "from_state_dict")
    )
    assert ":class:" not in shown
    loaded = re.findall(r"""<(?:script|link|img)[^>]*(?:src|href)=["'](https?://[^"']*)""", shown)
    assert not loaded, "nothing comes from other servers"
