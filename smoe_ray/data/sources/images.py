"""Data source `images`: MNIST-format IDX files, an ``.npz`` with x and y, or folders of image files."""

from __future__ import annotations

from pathlib import Path

from smoe_ray.data.advice import about_file, about_folder
from smoe_ray.data.array_files import FourFiles, OneNpz, find_four_files
from smoe_ray.data.files import fetch_uri, is_uri
from smoe_ray.data.image_folder import ClassFolders, NoImagesError, find_class_folders
from smoe_ray.data.labelled_images import Treatment, content_of_arrays, content_of_pictures
from smoe_ray.data.source import Content, DataRequirement, ReadContext
from smoe_ray.errors import DataError
from smoe_ray.spec import ImageData

Found = FourFiles | OneNpz | ClassFolders


def requirements(spec: ImageData) -> tuple[DataRequirement, ...]:
    """The file or folder that `spec.root` names."""
    if is_uri(spec.root):
        return (DataRequirement("images", spec.root, "remote"),)
    root = Path(spec.root).expanduser()
    if root.is_file():
        return (DataRequirement("images", str(root), "present", root.stat().st_size),)
    return (DataRequirement("images", str(root), "present" if root.is_dir() else "absent"),)


def find(spec: ImageData, context: ReadContext) -> Found:
    """The files at `spec.root`, fetched if it is a URI.

    Raises:
        DataError: there are none of a layout that can be read, or they cannot be fetched.
    """
    root = fetch_uri(spec.root, context.progress) if is_uri(spec.root) else Path(spec.root).expanduser()
    if root is None or not root.exists():
        raise DataError(f"{spec.root}: no such file or folder; set data.root")
    if root.is_file():
        if spec.layout not in ("auto", "npz"):
            raise DataError(f"{root}: data.layout '{spec.layout}' needs a folder")
        reason = about_file(root)
        if reason is not None:
            raise DataError(reason)
        return OneNpz(root)
    if not root.is_dir():
        raise DataError(f"{root}: neither a file nor a folder, but a pipe, socket or device; set data.root")
    if spec.layout != "folder":
        four = find_four_files(root)
        if four is not None:
            return four
    if spec.layout == "npz":
        raise DataError(f"{root}: data.layout 'npz' needs an .npz file")
    if spec.layout == "idx":
        raise DataError(about_folder(root))
    try:
        return find_class_folders(root)
    except NoImagesError as error:
        raise DataError(about_folder(error.folder)) from None


def key(_spec: ImageData, found: Found, context: ReadContext) -> list[str]:
    """Path below the root (or role) and content hash of each file."""
    named = found.files()
    files = [file for _, file in named]
    if isinstance(found, ClassFolders):
        digests = context.content_hashes(files)
    else:
        digests = [context.content_hash(file) for file in files]
    return [f"{name} {digest}" for (name, _), digest in zip(named, digests, strict=True)]


def read(spec: ImageData, found: Found, context: ReadContext) -> Content:
    """All images of `spec`, in one format; `spec.background` is put behind what is transparent.

    Raises:
        DataError: a file is damaged or of the wrong kind, a class is absent or has fewer images than required, the
            images have several sizes and `spec.image` does not choose one, or they cannot be meant as they are.
    """
    treatment = Treatment(spec.root, spec.image, spec.background, spec.ink, spec.allow_constant)
    if isinstance(found, ClassFolders):
        return content_of_pictures(found.train, found.test, spec, treatment, found.notes, context.progress)
    arrays = found.read()
    return content_of_arrays(arrays.transposed() if spec.transpose or found.is_transposed else arrays, spec, treatment)
