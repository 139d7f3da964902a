"""What is in a place where no images could be read, and what to do about it."""

from __future__ import annotations

from pathlib import Path

from smoe_ray.data.array_files import find_four_files, is_idx_name
from smoe_ray.data.checks import some
from smoe_ray.data.image_folder import IMAGE_SUFFIXES, find_class_folders, is_image
from smoe_ray.errors import DataError

LAYOUTS = "IDX files, an .npz, or one folder per class with image files"

_AS_NPZ = "is not read; save as .npz with x (N, H, W) or (N, H, W, 3), and y"
_PROBED_FOLDERS = 50
_DEPTH = 3

_FOREIGN = {
    ".csv": f"CSV {_AS_NPZ}",
    ".tsv": f"TSV {_AS_NPZ}",
    ".parquet": "Parquet files are read with data.source: parquet",
    ".arrow": f"Arrow {_AS_NPZ}",
    ".h5": f"HDF5 {_AS_NPZ}",
    ".hdf5": f"HDF5 {_AS_NPZ}",
    ".mat": f"MATLAB's format is read for SVHN alone (data.source: svhn); anything else {_AS_NPZ}",
    ".pkl": f"a pickle {_AS_NPZ}",
    ".pickle": f"a pickle {_AS_NPZ}",
    ".pt": f"PyTorch's format {_AS_NPZ}",
    ".pth": f"PyTorch's format {_AS_NPZ}",
    ".tfrecord": f"TFRecord {_AS_NPZ}",
    ".npy": "one array alone has no labels; save as .npz with x and y",
    ".ndjson": "Quick, Draw!'s drawings are read with data.source: quickdraw, data.layout: ndjson",
    ".zip": "an archive is not read; unpack it and set data.root to the folder",
    ".tar": "an archive is not read; unpack it and set data.root to the folder",
    ".tgz": "an archive is not read; unpack it and set data.root to the folder",
    ".gz": "a packed file is not read; unpack it",
    ".7z": "an archive is not read; unpack it and set data.root to the folder",
    ".rar": "an archive is not read; unpack it and set data.root to the folder",
}


def about_file(file: Path) -> str | None:
    """Why a file cannot be `data.root` and what can, as its name says; None for an ``.npz``."""
    if is_idx_name(file.name):
        return f"{file}: one of a set of IDX files; set data.root to their folder: {file.parent}"
    if is_image(file):
        return f"{file}: one image; set data.root to the folder that holds one folder per class"
    if file.suffix.lower() == ".npz":
        return None
    suffix = ".tar" if ".tar." in file.name.lower() else file.suffix.lower()
    if suffix in _FOREIGN:
        return f"{file}: {_FOREIGN[suffix]}"
    if _is_cifar_batch(file):
        return f"{file}: CIFAR's batches are read with data.source: cifar10"
    return f"{file}: neither an .npz file nor a folder; data.root needs {LAYOUTS}"


def about_folder(root: Path) -> str:
    """What is in a folder without images that can be read, and what to set `data.root` to."""
    entries = sorted(entry for entry in root.iterdir() if not entry.name.startswith("."))
    if not entries:
        return f"{root}: no images: the folder is empty; needed: {LAYOUTS}"
    archives = [entry for entry in entries if entry.suffix.lower() == ".npz" and entry.is_file()]
    if archives:
        return f"{root}: holds {some(file.name for file in archives)}; set data.root: {archives[0]}"
    if _is_readable(root):
        return f"{root}: no images of this data.layout, but of another; set data.layout: auto"
    inside = _readable_below(root, _DEPTH)
    if inside is not None:
        return f"{root}: no images here, but in {inside.relative_to(root)}; set data.root: {inside}"
    images = [entry.name for entry in entries if is_image(entry)]
    if images:
        return f"{root}: images ({some(images, 3)}), but no class folders; move them into one folder per class"
    for entry in entries:
        if entry.is_file() and (entry.suffix.lower() in _FOREIGN or _is_cifar_batch(entry)):
            return f"{root}: holds {about_file(entry)}".replace(f"{entry}: ", f"{entry.name}: ", 1)
    found = some(entry.name + "/" * entry.is_dir() for entry in entries)
    return f"{root}: no images: it holds {found}; needed: {LAYOUTS} ({', '.join(IMAGE_SUFFIXES)})"


def _readable_below(folder: Path, depth: int) -> Path | None:
    folders = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    for inside in folders[:_PROBED_FOLDERS]:
        if _is_readable(inside):
            return inside
    if depth > 1:
        for inside in folders[:_PROBED_FOLDERS]:
            found = _readable_below(inside, depth - 1)
            if found is not None:
                return found
    return None


def _is_readable(folder: Path) -> bool:
    try:
        if find_four_files(folder) is not None:
            return True
        find_class_folders(folder)
    except (DataError, OSError):
        return any(file.suffix.lower() == ".npz" for file in folder.iterdir())
    return True


def _is_cifar_batch(file: Path) -> bool:
    return file.name.startswith(("data_batch_", "test_batch")) and file.suffix in ("", ".bin")
