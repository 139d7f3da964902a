"""Parquet files of images, as Hugging Face publishes them: pixels, names of classes, parts, and what is refused."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from smoe_ray.data import Splits, load_splits, requirements
from smoe_ray.errors import DataError
from smoe_ray.spec import ImageFormat, ParquetData

X = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)
Y = [2, 0, 2, 0, 0, 2, 0, 2, 2, 0, 0, 2]
NAMES = ("cat", "dog", "owl")


def png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def write(
    file: Path, rows: slice, labels: list[Any] = Y, names: tuple[str, ...] | None = NAMES, struct: bool = True,
    columns: tuple[str, str] = ("image", "label"),
) -> None:  # fmt: skip
    """Some of the images, in row groups of three."""
    file.parent.mkdir(exist_ok=True)
    images: list[Any] = [png(image) for image in X[rows]]
    if struct:
        images = [{"bytes": content, "path": None} for content in images]
    table = pa.table(dict(zip(columns, (images, labels[rows]), strict=True)))
    if names is not None:  # as the library `datasets` writes its features
        features = {columns[1]: {"names": list(names), "_type": "ClassLabel"}, columns[0]: {"_type": "Image"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pyarrow.parquet.write_table(table, file, row_group_size=3)


def splits_of(tmp_path: Path, root: Path | None = None, **fields: Any) -> Splits:
    return load_splits(ParquetData(root=str(root or tmp_path / "set"), **fields), tmp_path / "cache")


def assert_rows(splits: Splits, train: list[int], test: list[int]) -> None:
    for part, rows in ((splits.train, train), (splits.test, test)):
        assert np.array_equal(part.image_BHW, X[rows].transpose(0, 3, 1, 2))


def refused(tmp_path: Path, *words: str, **fields: Any) -> None:
    with pytest.raises(DataError) as error:
        splits_of(tmp_path, **fields)
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize("folder", ["", "data"])
@pytest.mark.parametrize("struct", [True, False], ids=["struct", "bytes"])
@pytest.mark.parametrize("test", ["test", "validation"])
def test_parts_in_several_files(folder: str, struct: bool, test: str, tmp_path: Path) -> None:
    place = tmp_path / "set" / folder
    (tmp_path / "set").mkdir()
    write(place / "train-00000-of-00002.parquet", slice(0, 5), struct=struct)
    write(place / "train-00001-of-00002.parquet", slice(5, 9), struct=struct)
    write(place / f"{test}-00000-of-00001.parquet", slice(9, 12), struct=struct)
    splits = splits_of(tmp_path)
    assert splits.class_names == ("cat", "owl")  # only those that have images
    assert_rows(splits, [1, 3, 4, 6, 0, 2, 5, 7, 8], [9, 10, 11])
    assert splits.test.label_B.tolist() == [0, 0, 1]


def test_the_test_part_goes_before_validation_which_is_noted(tmp_path: Path) -> None:
    for part, rows in (("train", slice(0, 6)), ("validation", slice(6, 9)), ("test", slice(8, 12))):
        write(tmp_path / "set" / f"{part}.parquet", rows)
    splits = splits_of(tmp_path)
    assert_rows(splits, [1, 3, 4, 0, 2, 5], [9, 10, 8, 11])
    assert splits.notes == ("not used: validation.parquet",)


def test_one_file_keeps_its_last_images_for_testing(tmp_path: Path) -> None:
    write(tmp_path / "owls.parquet", slice(0, 12), names=None)
    splits = splits_of(
        tmp_path, root=tmp_path / "owls.parquet", test_per_class=2, classes=("2", "0"), train_per_class=3
    )
    assert splits.class_names == ("2", "0")
    assert_rows(splits, [0, 2, 5, 1, 3, 4], [8, 11, 9, 10])
    [need] = requirements(ParquetData(root=str(tmp_path / "owls.parquet")))
    assert (need.state, need.size_bytes) == ("present", (tmp_path / "owls.parquet").stat().st_size)


def test_labels_may_be_words_and_columns_have_other_names(tmp_path: Path) -> None:
    words = [NAMES[label] for label in Y]
    for part, rows in (("train", slice(0, 9)), ("test", slice(9, 12))):
        write(tmp_path / "set" / f"{part}.parquet", rows, words, names=None, columns=("img", "fine_label"))
    refused(tmp_path, "no column 'image'", "img, fine_label", "set data.image_column")
    refused(tmp_path, "no column 'label'", "set data.label_column", image_column="img")
    splits = splits_of(tmp_path, image_column="img", label_column="fine_label")
    assert splits.class_names == ("cat", "owl")
    assert_rows(splits, [1, 3, 4, 6, 0, 2, 5, 7, 8], [9, 10, 11])


def test_images_are_brought_to_the_format_of_the_spec(tmp_path: Path) -> None:
    write(tmp_path / "set" / "train.parquet", slice(0, 12))
    spec = ParquetData(root=str(tmp_path / "set"), image=ImageFormat(size=8, channels="grey"))
    assert spec.image_shape == load_splits(spec, tmp_path / "cache").train.image_shape == (1, 8, 8)


def test_one_row_group_is_in_memory_at_a_time_and_each_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "set" / "train.parquet", slice(0, 12))
    read: list[int] = []
    whole = pyarrow.parquet.ParquetFile.read_row_group

    def counted(file: Any, group: int, **options: Any) -> Any:
        read.append(group)
        return whole(file, group, **options)

    monkeypatch.setattr(pyarrow.parquet.ParquetFile, "read_row_group", counted)
    splits = splits_of(tmp_path, test_per_class=1)
    assert_rows(splits, [1, 3, 4, 6, 9, 0, 2, 5, 7, 8], [10, 11])
    assert read == [0, 1, 2, 3]  # though the classes are mixed
    read.clear()
    splits_of(tmp_path, test_per_class=1, train_per_class=1)
    assert read == [0, 3]


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([-1] * 12, "a label is -1; needed: whole numbers from 0"),
        ([0.5] * 12, "a label is 0.5"),
        ([0] * 11 + [None], "a label is None"),
        (["a"] * 11 + [None], "a label is None"),
        (["a\nb"] * 12, "a label is 'a\\nb'"),
        ([0] * 11 + [3], "label 3, but its schema names 3 classes"),
    ],
)
def test_labels_that_are_none_are_refused(labels: list[Any], words: str, tmp_path: Path) -> None:
    write(tmp_path / "set" / "train.parquet", slice(0, 12), labels)
    refused(tmp_path, "train.parquet", words)


def test_files_that_hold_no_images_are_refused(tmp_path: Path) -> None:
    refused(tmp_path, "no such file or folder")
    file = tmp_path / "set" / "train.parquet"
    write(file, slice(0, 12))
    table = pyarrow.parquet.read_table(file)
    for content, words in ((None, "holds no encoded image"), (b"no image", "not a readable image")):
        images = table.column("image").to_pylist()
        images[3] = {"bytes": content, "path": "cat.png"}
        pyarrow.parquet.write_table(table.set_column(0, "image", pa.array(images)), file)
        refused(tmp_path, "train.parquet: row 3", words)
    file.write_bytes(b"PAR1 nothing PAR1")
    refused(tmp_path, "train.parquet: not a readable Parquet file")
    file.rename(tmp_path / "set" / "0000.parquet")
    refused(tmp_path, "no train-*.parquet here or in data/ (0000.parquet)")
