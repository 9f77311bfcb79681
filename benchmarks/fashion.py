"""Shared by the benchmarks: where Fashion-MNIST is."""

import gzip
from pathlib import Path

DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # of the package dataset-fashion-mnist


def unpack_debian(root: Path) -> None:
    """Puts the files of Debian's package, if it is installed, where torchvision looks for them below ``root``."""
    raw = root / "FashionMNIST" / "raw"
    if DEBIAN.is_dir() and not raw.is_dir():
        raw.mkdir(parents=True)
        for packed in DEBIAN.glob("*.gz"):
            (raw / packed.stem).write_bytes(gzip.decompress(packed.read_bytes()))
