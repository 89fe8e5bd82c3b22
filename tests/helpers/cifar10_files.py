"""CIFAR-10's own files with few images: what torchvision reads, checksums included."""

import hashlib
import pickle
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import CIFAR10

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
BATCHES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
META = "batches.meta"


@dataclass(frozen=True)
class Cifar10Files:
    """Where the files are, and what was written: ``rows`` uint8 (batch: images × 3072) and ``labels``.

    A row holds the image's red plane, then its green and its blue one, each of 32 rows of 32 pixels
    (https://www.cs.toronto.edu/~kriz/cifar.html).
    """

    root: Path
    rows: dict[str, np.ndarray]
    labels: dict[str, list[int]]

    def file(self, name: str) -> Path:
        """One of the files."""
        return self.root / CIFAR10.base_folder / name

    def know(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Makes the checksums that torchvision expects those of the files as they are now."""
        sums = {name: md5(self.file(name)) for name in (*BATCHES, META)}
        monkeypatch.setattr(CIFAR10, "train_list", [[name, sums[name]] for name in BATCHES[:-1]])
        monkeypatch.setattr(CIFAR10, "test_list", [[BATCHES[-1], sums[BATCHES[-1]]]])
        monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": sums[META]})

    def pack(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """The archive that people download, in ``root``, with the checksum that torchvision expects of it."""
        archive = root / CIFAR10.filename
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(self.root / CIFAR10.base_folder, CIFAR10.base_folder)
        monkeypatch.setattr(CIFAR10, "tgz_md5", md5(archive))
        return archive


def md5(path: Path) -> str:
    """A file's checksum, as torchvision keeps it."""
    return hashlib.md5(path.read_bytes()).hexdigest()


def write_cifar10(root: Path, monkeypatch: pytest.MonkeyPatch, per_batch: int = 4) -> Cifar10Files:
    """Five training batches and a test batch of ``per_batch`` random images each, no two alike."""
    random = np.random.default_rng(0)
    rows = {name: random.integers(0, 256, (per_batch, 3072), dtype=np.uint8) for name in BATCHES}
    labels = {name: random.integers(0, 10, per_batch).tolist() for name in BATCHES}
    files = Cifar10Files(root, rows, labels)
    files.file("").mkdir(parents=True)
    for name in BATCHES:
        content = {
            "batch_label": name,
            "labels": labels[name],
            "data": rows[name],
            "filenames": [f"{name}_{n}.png" for n in range(per_batch)],
        }
        files.file(name).write_bytes(pickle.dumps(content, protocol=2))
    meta = {"num_cases_per_batch": per_batch, "label_names": NAMES, "num_vis": 3072}
    files.file(META).write_bytes(pickle.dumps(meta, protocol=2))
    files.know(monkeypatch)
    return files
