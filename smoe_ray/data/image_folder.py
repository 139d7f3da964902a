"""Folders of image files: which files belong to which class, for training and for testing."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from smoe_ray.columns import count
from smoe_ray.data.checks import some
from smoe_ray.errors import DataError
from smoe_ray.spec.data_base import normalised

IMAGE_SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".pbm", ".pnm",
)  # fmt: skip

_TRAIN = ("train", "training")
_TEST = ("test", "testing")
_VALIDATION = ("val", "valid", "validation", "dev")
_SPLITS = (*_TRAIN, *_TEST, *_VALIDATION)
_NO_DATA = ("thumbs.db", "desktop.ini")  # what file managers leave behind
_NO_CLASSES = ("__macosx",)

Classes = Mapping[str, tuple[Path, ...]]


class NoImagesError(DataError):
    """A folder has no class folders with images."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"{folder}: no images in class folders")
        self.folder = folder


@dataclass(frozen=True)
class ClassFolders:
    """Image files of each class."""

    root: Path
    train: Classes
    test: Classes | None
    notes: tuple[str, ...]

    def files(self) -> list[tuple[str, Path]]:
        """Every file that is read, with its path below the root."""
        parts = (self.train, self.test or {})
        return [
            (file.relative_to(self.root).as_posix(), file)
            for part in parts
            for files in part.values()
            for file in files
        ]


def find_class_folders(root: Path) -> ClassFolders:
    """The images below ``train/<class>/`` and ``test/<class>/``, or below ``<class>/`` alone.

    A class has the images of its folder and of all folders below. Where there is no test folder, a validation folder is
    used in its place. Names that begin with a dot are left out.

    Raises:
        DataError: there are no images in class folders, or it is not clear what belongs to what.
    """
    splits = {entry.name: entry for entry in _folders(root) if _is_split(entry)}
    train = _one_of(root, splits, _TRAIN)
    if train is None:
        names = [entry.name for entry in _folders(root)]
        if names and all(name.lower() in _SPLITS for name in names):
            raise DataError(f"{root}: holds {some(names)}, but no train folder with one folder per class in it")
        found = _list_classes(root)
        return ClassFolders(root, found.classes, None, tuple(found.notes()))

    test = _one_of(root, splits, _TEST) or _one_of(root, splits, _VALIDATION)
    used = [train] if test is None else [train, test]
    notes = []
    if test is not None and test.name.lower() in _VALIDATION:
        notes.append(f"the test set is {test.name}/, as there is no test folder")
    unused = [entry.name for entry in _folders(root) if entry not in used]
    if unused:
        notes.append(f"not used, being beside {train.name}/: {some(f'{name}/' for name in unused)}")
    halves = [_list_classes(folder) for folder in used]
    notes += [f"{folder.name}/: {note}" for folder, half in zip(used, halves, strict=True) for note in half.notes()]
    return ClassFolders(root, halves[0].classes, halves[1].classes if len(halves) == 2 else None, tuple(notes))


def is_image(file: Path) -> bool:
    """Whether a file is read as an image, as its name says."""
    return file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")


def _folders(folder: Path) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not entry.name.startswith(".") and entry.name.lower() not in _NO_CLASSES:
            yield entry


def _is_split(folder: Path) -> bool:
    """Whether a folder is a part of the data rather than a class that happens to be called so."""
    if folder.name.lower() not in _SPLITS:
        return False
    return any(True for _ in _folders(folder)) or not any(is_image(file) for file in folder.iterdir())


def _one_of(root: Path, splits: Mapping[str, Path], names: tuple[str, ...]) -> Path | None:
    found = [splits[name] for name in splits if name.lower() in names]
    if len(found) > 1:
        raise DataError(f"{root}: holds {' and '.join(folder.name for folder in found)}; keep one of them here")
    return found[0] if found else None


@dataclass
class _Listing:
    """What was found in a folder of class folders."""

    classes: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    nested: dict[str, list[str]] = field(default_factory=dict)
    """Class: its subfolders that hold images."""
    empty: list[str] = field(default_factory=list)
    unread: Counter[str] = field(default_factory=Counter)
    """Suffixes of files in class folders that are no images."""
    loose: list[str] = field(default_factory=list)
    """Images beside the class folders."""

    def notes(self) -> list[str]:
        notes = []
        if self.nested:
            classes = some(f"{name}: {some(folders, 3)}" for name, folders in self.nested.items())
            notes.append(f"images in subfolders belong to the class above ({classes})")
        if self.empty:
            notes.append(f"folders without images are no classes: {some(self.empty)}")
        if self.unread:
            kinds = some(f"{suffix or 'no suffix'}: {count:,}" for suffix, count in self.unread.most_common())
            notes.append(f"{count(sum(self.unread.values()), 'file')} in class folders not read as images ({kinds})")
        if self.loose:
            notes.append(
                f"{count(len(self.loose), 'image')} beside the class folders, of no class ({some(self.loose, 3)})"
            )
        return notes


def _list_classes(folder: Path) -> _Listing:
    listing = _Listing(loose=[entry.name for entry in sorted(folder.iterdir()) if is_image(entry) and entry.is_file()])
    for entry in _folders(folder):
        name = normalised(entry.name)
        if not name.isprintable():  # among others what is not UTF-8, which Python shows as lone surrogates
            raise DataError(f"{folder}: the folder {os.fsencode(entry.name)!r} has no printable UTF-8 name; rename it")
        files = []
        for file in _walk(entry):
            if is_image(file):
                if not file.is_file():
                    kind = "a link to nothing" if file.is_symlink() else "no regular file, but a pipe, socket or device"
                    raise DataError(f"{file}: {kind}; mend or remove it")
                files.append(file)
            elif file.name.lower() not in _NO_DATA:
                listing.unread[file.suffix.lower()] += 1
        if not files:
            listing.empty.append(name)
            continue
        if name in listing.classes:
            raise DataError(f"{folder}: two folders are named '{name}', in different Unicode forms; rename one")
        listing.classes[name] = tuple(sorted(files))
        below = sorted({file.relative_to(entry).parts[0] for file in files if file.parent != entry})
        if below:
            listing.nested[name] = below
            if any(part.lower() in _SPLITS for part in below):
                raise DataError(
                    f"{entry}: holds {some(below)} below the class; needed: {folder / below[0] / name}, and so on"
                )
    if not listing.classes:
        raise NoImagesError(folder)
    _refuse_one_folder_too_high(folder, listing)
    return listing


def _walk(folder: Path) -> Iterator[Path]:
    """All files below a folder, links followed, hidden ones left out."""
    above = {Path(os.path.realpath(folder))}
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name.lower() not in _NO_CLASSES)
        for name in folders:
            target = Path(place, name)
            if target.is_symlink():
                real = Path(os.path.realpath(target))
                if real in above or real in Path(os.path.realpath(place)).parents:
                    raise DataError(f"{target}: a link to a folder above or read before; remove it")
                above.add(real)
        yield from (Path(place, name) for name in files if not name.startswith("."))


def _refuse_one_folder_too_high(folder: Path, listing: _Listing) -> None:
    if len(listing.classes) == 1 and not listing.loose:
        [(name, files)] = listing.classes.items()
        if all(file.parent != folder / file.relative_to(folder).parts[0] for file in files):
            inside = folder / files[0].relative_to(folder).parts[0]
            raise DataError(
                f"{folder}: holds one folder, whose images are in subfolders ({some(listing.nested[name])}): if those "
                f"are the classes, set data.root: {inside}; if not, move its images up"
            )
