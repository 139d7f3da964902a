"""Small image sets in the files in which MNIST and CIFAR-10 are published."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
from pathlib import Path

import numpy as np


def write_mnist(folder: Path, rng: np.random.Generator, train: int = 700, test: int = 150) -> None:
    """Noise in the four gzipped IDX files, the ten classes in turns."""
    for part, count in (("train", train), ("t10k", test)):
        images, labels = rng.integers(0, 256, count * 28 * 28, dtype=np.uint8), np.arange(count, dtype=np.uint8) % 10
        header = struct.pack(">4i", 0x803, count, 28, 28)
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + images.tobytes(), 1))
        header = struct.pack(">2i", 0x801, count)
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(header + labels.tobytes(), 1))


def write_cifar10(folder: Path, rng: np.random.Generator, images_per_file: int = 150) -> None:
    """Noise in the archive of the binary layout, the ten classes in turns."""
    folder.mkdir(parents=True)
    with tarfile.open(folder / "cifar-10-binary.tar.gz", "w:gz", compresslevel=1) as archive:
        for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
            records = rng.integers(0, 256, (images_per_file, 1 + 3 * 32 * 32), dtype=np.uint8)
            records[:, 0] = np.arange(images_per_file) % 10
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            member.size = records.nbytes
            archive.addfile(member, io.BytesIO(records.tobytes()))
