"""Small data sets in the formats of the true ones, where torchvision looks for them."""

import hashlib
import pickle
import struct
from pathlib import Path

import numpy as np
from torchvision import datasets


def drawn(count, shape, classes=10, seed=0):
    """Random images of bytes, and labels of which every class occurs."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (count, *shape), dtype=np.uint8)
    return images, generator.permutation(np.arange(count) % classes)


def write_cifar(root, monkeypatch, kind=datasets.CIFAR10, train=60, test=20):
    """Writes batches of images as pickled dictionaries, and the checksums that torchvision compares.

    Returns:
        The training and the test images, (n, 3, 32, 32), each with labels.
    """
    folder = Path(root) / kind.base_folder
    folder.mkdir(parents=True)
    names = [name for name, _ in kind.train_list], [name for name, _ in kind.test_list]
    classes = 10 if kind is datasets.CIFAR10 else 100
    key = "labels" if kind is datasets.CIFAR10 else "fine_labels"
    sums, found = {}, []
    for seed, (files, count) in enumerate(zip(names, (train, test), strict=True)):
        images, labels = drawn(count, (3, 32, 32), classes, seed)
        found.append((images, labels))
        for name, part, some in zip(
            files, np.array_split(images, len(files)), np.array_split(labels, len(files)), strict=True
        ):
            entry = {"data": part.reshape(len(part), -1), key: some.tolist()}
            sums[name] = _write(folder / name, pickle.dumps(entry, protocol=2))
    meta = kind.meta["filename"]
    names_of_classes = {kind.meta["key"]: [f"class {number}" for number in range(classes)]}
    sums[meta] = _write(folder / meta, pickle.dumps(names_of_classes, protocol=2))
    for attribute in ("train_list", "test_list"):
        known = getattr(kind, attribute)
        monkeypatch.setattr(kind, attribute, [[name, sums[name]] for name, _ in known])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": sums[meta]})
    return found


def write_svhn(root, monkeypatch, train=60, test=20):
    """Writes files of MATLAB, in which the digit 0 has the label 10; see :func:`write_cifar`."""
    from scipy.io import savemat

    Path(root).mkdir(parents=True)
    sums, found = dict(datasets.SVHN.split_list), []
    for seed, (split, count) in enumerate({"train": train, "test": test}.items()):
        images, labels = drawn(count, (3, 32, 32), seed=seed)
        found.append((images, labels))
        address, name, _ = sums[split]
        path = Path(root) / name
        stored = np.where(labels == 0, 10, labels).astype(np.uint8)
        savemat(path, {"X": images.transpose(2, 3, 1, 0), "y": stored.reshape(-1, 1)})
        sums[split] = [address, name, hashlib.md5(path.read_bytes()).hexdigest()]
    monkeypatch.setattr(datasets.SVHN, "split_list", sums)
    return found


def write_idx(folder, prefix="", train=60, test=20, classes=10):
    """Writes the four IDX files of MNIST or a data set like it.

    Returns:
        The training and the test images, (n, 28, 28), as they are in the files, each with labels.
    """
    Path(folder).mkdir(parents=True)
    found = []
    for seed, (split, count) in enumerate({"train": train, "test" if prefix else "t10k": test}.items()):
        images, labels = drawn(count, (28, 28), classes, seed)
        found.append((images, labels))
        start = f"{prefix}-{split}" if prefix else split
        header = struct.pack(">4i", 0x00000803, *images.shape)
        (Path(folder) / f"{start}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        header = struct.pack(">2i", 0x00000801, count)
        (Path(folder) / f"{start}-labels-idx1-ubyte").write_bytes(header + labels.astype(np.uint8).tobytes())
    return found


def _write(path, content):
    path.write_bytes(content)
    return hashlib.md5(content).hexdigest()
