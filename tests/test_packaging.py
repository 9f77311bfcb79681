"""What users get: the files in a source distribution, from which wheels are built."""

import subprocess
import sys
import tarfile

from tests.helpers.scripts import ROOT


def test_the_source_distribution_has_every_file_of_the_package(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as content:
        names = {name.partition("/")[2] for name in content.getnames()}
    package = ROOT / "src" / "lightning_lottery"
    files = [path for path in package.rglob("*") if path.is_file() and path.suffix not in (".pyc", "")]
    assert any(path.suffix == ".csv" for path in files)
    missing = {str(path.relative_to(ROOT)) for path in files} - names
    assert not missing
    assert {
        "README.md",
        "mkdocs.yml",
        "docs/experiments.md",
        "docs/tutorial.ipynb",
        "examples/tutorial.ipynb",
    } <= names
