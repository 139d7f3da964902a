"""Readers of Google's files and the raster: known answers, damaged files, hostile pickles."""

from __future__ import annotations

import os
import pickle
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from smoe_ray.data import Splits, load_splits, prepare, quickdraw
from smoe_ray.data.quickdraw import rasterise, read_drawings
from smoe_ray.errors import DataError
from smoe_ray.spec import QuickDrawData
from support.quickdraw_files import npy, object_array, python2_pickle, scribbles, write_npz, write_sketchrnn

SAME_FOLDER = settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


def one_line_naming(error: pytest.ExceptionInfo[DataError], *words: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def nothing_left(cache: Path) -> bool:
    """Whether a cache holds nothing but locks."""
    return {path.suffix for path in cache.glob("prepared/*")} <= {".lock"}


# --- raster -----------------------------------------------------------------------------------------------------------


def drawing(*points: tuple[int, int, int]) -> np.ndarray:
    return np.array(points, dtype=np.int16)


def test_a_horizontal_line_lies_where_the_paper_puts_it() -> None:
    # On the canvas from 5.6 to 50.4, at height 28, 3 pixels wide: half of that after the reduction.
    image = rasterise([drawing((7, 9, 0), (100, 0, 1))])[0]
    dark = image < 200
    assert dark[14, 3:25].all()
    assert set(np.flatnonzero(dark.any(axis=0))) == set(range(2, 26))
    assert set(np.flatnonzero(dark.any(axis=1))) == {13, 14}
    assert image[:10].min() >= 250
    assert image[18:].min() >= 250


def test_aspect_is_kept_and_the_drawing_is_centred() -> None:
    # 44.8 x 22.4 and the width of the line around (28, 28), halved: columns 2.05 to 25.95, rows 7.65 to 20.35.
    rectangle = drawing((0, 0, 0), (200, 0, 0), (0, 100, 0), (-200, 0, 0), (0, -100, 1))
    dark = rasterise([rectangle])[0] < 200
    assert np.flatnonzero(dark.any(axis=0)).tolist() == list(range(2, 26))
    assert np.flatnonzero(dark.any(axis=1)).tolist() == list(range(7, 21))
    assert not dark[10:18, 5:23].any()


def test_a_lifted_pen_draws_nothing_and_the_way_to_the_first_point_is_no_line() -> None:
    two_bars = drawing((500, 300, 0), (0, 100, 1), (100, -100, 0), (0, 100, 1))
    dark = rasterise([two_bars])[0] < 128
    assert not dark[:, 8:20].any()
    assert dark[4:24, 2:4].any(axis=1).all()
    assert dark[4:24, 24:26].any(axis=1).all()


def test_a_stroke_of_one_point_is_a_dot() -> None:
    dot_in_a_frame = drawing((0, 0, 0), (100, 0, 0), (0, 100, 0), (-100, 0, 0), (0, -100, 1), (50, 50, 1))
    assert rasterise([dot_in_a_frame])[0][13:15, 13:15].max() < 128
    assert (rasterise([drawing((5, 5, 1))])[0] < 128).any()


def test_lines_cover_what_lies_within_half_a_width_of_them(shared_data: Path) -> None:
    """Against a second raster, made from the distance of every canvas pixel to every segment."""
    from PIL import Image

    drawings = read_drawings(shared_data / "quickdraw" / "sketchrnn" / "cat.npz", "test")
    centre_YX = np.stack(np.mgrid[:56, :56], axis=-1) + 0.5
    for strokes, image in zip(drawings, rasterise(drawings), strict=True):
        position = strokes[:, :2].astype(float).cumsum(axis=0)
        low, high = position.min(axis=0), position.max(axis=0)
        point = (position - (low + high) / 2) * (44.8 / (high - low).max()) + 28
        near = np.zeros((56, 56), dtype=bool)
        for start, end, lifted in zip(point, point[1:], strokes[:, 2], strict=False):
            if not lifted:
                along = end - start
                share = ((centre_YX[..., ::-1] - start) @ along / max(along @ along, 1e-9)).clip(0, 1)
                near |= np.linalg.norm(centre_YX[..., ::-1] - start - share[..., None] * along, axis=-1) <= 1.5
        canvas = Image.fromarray(np.where(near, 0, 255).astype(np.uint8))
        expected = np.asarray(canvas.resize((28, 28), Image.Resampling.LANCZOS)).astype(float)
        assert np.corrcoef(expected.ravel(), image.ravel())[0, 1] > 0.9
        assert abs(expected.mean() - image.mean()) < 12


points = hnp.arrays(np.int16, st.tuples(st.integers(1, 12), st.just(3)), elements=st.integers(-200, 200))


@given(strokes=points, offset=st.tuples(st.integers(-5000, 5000), st.integers(-5000, 5000)))
@settings(deadline=None, derandomize=True)
def test_where_a_drawing_starts_does_not_matter(strokes: np.ndarray, offset: tuple[int, int]) -> None:
    moved = strokes.copy()
    moved[0, :2] += np.array(offset, dtype=np.int16)
    image = rasterise([strokes])
    assert image.shape == (1, 28, 28)
    assert image.dtype == np.uint8
    assert np.array_equal(image, rasterise([moved]))


def test_the_number_of_processes_does_not_change_a_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    drawings = scribbles(1100)
    steps: list[tuple[int, int]] = []
    alone = rasterise(drawings)
    monkeypatch.setattr(quickdraw, "_POOL_PAYS_FROM", 0)
    together = rasterise(drawings, jobs=2, step=lambda done, total: steps.append((done, total)))
    assert np.array_equal(alone, together)
    assert steps == [(500, 1100), (1000, 1100), (1100, 1100)]


# --- sketch-rnn files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("package", [b"numpy._core", b"numpy.core"])
def test_drawings_come_back_as_they_were_written(tmp_path: Path, protocol: int, package: bytes) -> None:
    drawings = [*scribbles(20), np.asfortranarray(scribbles(1, seed=1)[0])]
    pickled = pickle.dumps(object_array(drawings), protocol)
    if protocol < 4:  # later ones hold the length of each name
        pickled = pickled.replace(b"numpy._core", package)
    found = read_drawings(write_npz(tmp_path / "cat.npz", {"train": npy(pickled, len(drawings))}), "train")
    assert all(np.array_equal(a, b) for a, b in zip(found, drawings, strict=True))


def test_drawings_written_by_python_2_are_read(tmp_path: Path) -> None:
    drawings = scribbles(20)
    pickled = python2_pickle(drawings)
    same = pickle.loads(pickled, encoding="latin1")  # the test file is what numpy itself would read
    assert all(np.array_equal(a, b) for a, b in zip(same, drawings, strict=True))
    found = read_drawings(write_npz(tmp_path / "cat.npz", {"train": npy(pickled, 20)}), "train")
    assert all(np.array_equal(a, b) for a, b in zip(found, drawings, strict=True))


@pytest.mark.parametrize("dtype", ["<i2", ">i4", "i8", "u1", "f4", ">f8"])
def test_drawings_of_any_number_type_are_read(tmp_path: Path, dtype: str) -> None:
    drawings = [np.abs(drawing) for drawing in scribbles(5)]
    stored = [drawing.astype(dtype) for drawing in drawings]
    found = read_drawings(write_sketchrnn(tmp_path / "cat.npz", stored, stored), "train")
    assert all(np.array_equal(a, b) and a.dtype == np.int16 for a, b in zip(found, drawings, strict=True))


def test_drawings_of_equal_length_are_read_from_one_array(tmp_path: Path) -> None:
    drawings = np.stack([drawing[:2] for drawing in scribbles(5)])
    for array in (drawings, np.asfortranarray(drawings), drawings.astype(float)):
        np.savez(tmp_path / "cat.npz", train=array)
        found = read_drawings(tmp_path / "cat.npz", "train")
        assert all(np.array_equal(a, b) for a, b in zip(found, drawings, strict=True))


def test_drawings_between_whole_numbers_keep_their_shape(tmp_path: Path) -> None:
    drawings = [drawing * np.array([0.37, 0.37, 1]) for drawing in scribbles(5)]
    found = read_drawings(write_sketchrnn(tmp_path / "cat.npz", drawings, drawings), "train")
    assert all(np.array_equal(a, b) for a, b in zip(found, drawings, strict=True))
    assert np.abs(rasterise(found).astype(int) - rasterise(scribbles(5))).mean() < 2


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((5, 3), np.int16), "shape (5, 3), not a list of drawings"),
        (np.zeros((5, 4, 5), np.int16), "a drawing is int16 of shape (4, 5)"),
        (np.full((5, 4, 3), 2, np.int16), "the third number of a point is 2"),
        (np.full((5, 4, 3), np.nan), "not finite"),
        (np.zeros((5, 4, 3), "U1"), "a drawing is <U1"),
    ],
)
def test_other_arrays_say_what_a_drawing_is(tmp_path: Path, array: np.ndarray, words: str) -> None:
    np.savez(tmp_path / "cat.npz", train=array)
    with pytest.raises(DataError) as error:
        read_drawings(tmp_path / "cat.npz", "train")
    one_line_naming(error, "cat.npz", words, "int16 (points, 3)")
    with pytest.raises(DataError, match="it holds train, but no 'test'"):
        read_drawings(tmp_path / "cat.npz", "test")


def test_only_a_download_is_to_be_fetched_again(tmp_path: Path) -> None:
    (tmp_path / "cat.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match="copy or save it again"):
        read_drawings(tmp_path / "cat.npz", "train")
    (tmp_path / "cat.npz.sha256").write_text("0  cat.npz")
    with pytest.raises(DataError, match="fetch it again"):
        read_drawings(tmp_path / "cat.npz", "train")


class _Touch:
    """Unpickled carelessly, makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.file),)


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("place", ["whole", "item", "beside"])
def test_a_malicious_pickle_is_refused_and_does_not_run(tmp_path: Path, protocol: int, place: str) -> None:
    mark = tmp_path / "payload-ran"
    drawings = scribbles(3)
    hostile = {
        "whole": _Touch(mark),
        "item": object_array([*drawings, _Touch(mark)]),
        "beside": [drawings, _Touch(mark)],
    }
    pickled = pickle.dumps(hostile[place], protocol)
    pickle.loads(pickled)
    assert mark.is_dir()  # so the payload works
    mark.rmdir()
    write_npz(tmp_path / "cat.npz", {"train": npy(pickled, 4), "test": npy(pickled, 4)})
    spec = QuickDrawData(classes=("cat",), root=str(tmp_path), train_per_class=1, test_per_class=1)
    with pytest.raises(DataError) as error:
        prepare(spec, tmp_path / "cache")
    one_line_naming(error, "cat.npz", "refused")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "eval"),
        ("numpy", "load"),
        ("numpy._core.multiarray", "scalar"),
        ("numpy", "ndarray.tofile"),
        ("_codecs", "lookup"),
        ("smoe_ray.data.quickdraw", "_Array"),
    ],
)
def test_no_other_name_is_admitted(tmp_path: Path, module: str, name: str) -> None:
    pickled = b"\x80\x04" + pickle.dumps(module, 4)[2:-1] + pickle.dumps(name, 4)[2:-1] + b"\x93."
    with pytest.raises(DataError) as error:
        read_drawings(write_npz(tmp_path / "cat.npz", {"train": npy(pickled, 1)}), "train")
    one_line_naming(error, f"{module}.{name}")


def test_a_pickle_cannot_change_the_reader(tmp_path: Path) -> None:
    """BUILD sets attributes of what it is given; what it is given here takes none."""
    for target in (b"cnumpy\nndarray\n", b"cnumpy.core.multiarray\n_reconstruct\n", b"c_codecs\nencode\n"):
        pickled = b"\x80\x02" + target + b"N}U\x05builtK\x01s\x86b."
        with pytest.raises(DataError):
            read_drawings(write_npz(tmp_path / "cat.npz", {"train": npy(pickled, 1)}), "train")
    drawings = scribbles(2)
    found = read_drawings(write_sketchrnn(tmp_path / "good.npz", drawings, drawings), "train")
    assert np.array_equal(found[0], drawings[0])


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((4, 2), np.int16),
        np.zeros((4, 3), complex),
        np.full((4, 3), np.inf, np.float32),
        np.zeros((0, 3), np.int16),
        np.zeros(3, np.int16),
        "text",
        object_array(scribbles(2)),
    ],
    ids=lambda wrong: str(getattr(wrong, "shape", wrong)) + str(getattr(wrong, "dtype", "")),
)
def test_every_drawing_is_checked(tmp_path: Path, wrong: object) -> None:
    mixed = object_array([*scribbles(2), wrong])
    with pytest.raises(DataError) as error:
        read_drawings(write_npz(tmp_path / "cat.npz", {"train": npy(pickle.dumps(mixed, 4), 3)}), "train")
    one_line_naming(error, "cat.npz")


def test_a_zip_bomb_is_refused_before_it_unpacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quickdraw, "MAX_MEMBER_BYTES", 10_000)
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *_: pytest.fail("unpacked"))
    write_npz(tmp_path / "cat.npz", {"train": bytes(10_001)})
    with pytest.raises(DataError) as error:
        read_drawings(tmp_path / "cat.npz", "train")
    one_line_naming(error, "cat.npz", "10,001 bytes")


def test_a_header_that_lies_about_the_number_of_drawings_is_refused(tmp_path: Path) -> None:
    pickled = pickle.dumps(object_array(scribbles(3)), 4)
    with pytest.raises(DataError, match="length"):
        read_drawings(write_npz(tmp_path / "cat.npz", {"train": npy(pickled, 4)}), "train")


def test_too_few_drawings_are_counted_and_the_key_is_named(tmp_path: Path) -> None:
    write_sketchrnn(tmp_path / "cat.npz", scribbles(12), scribbles(5))
    for train, test, words in ((13, 5, ("12", "data.train_per_class: 12")), (12, 6, ("5", "data.test_per_class: 5"))):
        spec = QuickDrawData(classes=("cat",), root=str(tmp_path), train_per_class=train, test_per_class=test)
        with pytest.raises(DataError) as error:
            prepare(spec, tmp_path / "cache")
        one_line_naming(error, "cat.npz", *words)


def test_classes_follow_the_order_of_the_spec_and_the_first_drawings_are_taken(tmp_path: Path) -> None:
    drawings = {name: scribbles(9, seed) for seed, name in enumerate(("cat", "The Eiffel Tower"))}
    for name, made in drawings.items():
        write_sketchrnn(tmp_path / f"{name}.npz", made[:6], made[6:])
    spec = QuickDrawData(classes=("The Eiffel Tower", "cat"), root=str(tmp_path), train_per_class=4, test_per_class=2)
    splits = load_splits(spec, tmp_path / "cache")
    assert splits.class_names == ("The Eiffel Tower", "cat")
    assert splits.train.label_B.tolist() == [0] * 4 + [1] * 4
    assert splits.train.label_B.dtype == np.int64
    assert np.array_equal(splits.train.image_BHW[4:], rasterise(drawings["cat"][:4]))
    assert np.array_equal(splits.test.image_BHW[:2], rasterise(drawings["The Eiffel Tower"][6:8]))
    inverted = load_splits(spec.model_copy(update={"ink": "white_on_black"}), tmp_path / "cache")
    assert np.array_equal(inverted.train.image_BHW, 255 - splits.train.image_BHW)


@given(data=st.data())
@SAME_FOLDER
def test_a_damaged_sketchrnn_file_gives_one_line_or_the_drawings(
    data: st.DataObject, shared_data: Path, tmp_path: Path
) -> None:
    original = shared_data / "quickdraw" / "sketchrnn" / "eye.npz"
    damaged = tmp_path / "eye.npz"
    damaged.write_bytes(_damage(data, original.read_bytes()))
    spec = QuickDrawData(classes=("eye",), root=str(tmp_path), train_per_class=20, test_per_class=4)
    cache = Path(tempfile.mkdtemp(dir=tmp_path))
    found = outcome(spec, cache)
    if isinstance(found, DataError):
        assert "\n" not in str(found)
        assert "eye.npz" in str(found)
        assert nothing_left(cache)
    else:  # the damage hit a part that is not read, or the archive's padding; zip checks the rest
        assert np.array_equal(found.test.image_BHW, rasterise(read_drawings(original, "test")))


def outcome(spec: QuickDrawData, cache: Path) -> Splits | DataError:
    try:
        return load_splits(spec, cache)
    except DataError as error:
        return error


def _damage(data: st.DataObject, content: bytes) -> bytes:
    cut = data.draw(st.integers(0, len(content)), label="cut")
    if data.draw(st.booleans(), label="cut it"):
        return content[:cut]
    flipped = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        flipped[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    return bytes(flipped)


# --- bitmaps ----------------------------------------------------------------------------------------------------------


def bitmap_spec(root: Path | str, **changes: object) -> QuickDrawData:
    return QuickDrawData.model_validate(
        {"classes": ["cat"], "layout": "bitmap", "root": str(root), "train_per_class": 5, "test_per_class": 3} | changes
    )


def test_the_test_set_of_bitmaps_is_the_end_of_the_file_whatever_is_trained_on(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 784), dtype=np.uint8)
    np.save(tmp_path / "cat.npy", pixels)
    for train in (1, 5, 9):
        splits = load_splits(bitmap_spec(tmp_path, train_per_class=train, ink="white_on_black"), tmp_path / "cache")
        assert np.array_equal(splits.train.image_BHW.reshape(-1, 784), pixels[:train])
        assert np.array_equal(splits.test.image_BHW.reshape(-1, 784), pixels[9:])
    black = load_splits(bitmap_spec(tmp_path), tmp_path / "cache")
    assert np.array_equal(black.train.image_BHW.reshape(-1, 784), 255 - pixels[:5])
    with pytest.raises(DataError) as error:
        prepare(bitmap_spec(tmp_path, train_per_class=10), tmp_path / "cache")
    one_line_naming(error, "cat.npy", "12", "data.train_per_class")


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((20, 784), np.float32),
        np.zeros((20, 28, 28), np.uint8),
        np.zeros((20, 783), np.uint8),
        np.zeros((0, 784), np.uint8),
        object_array(scribbles(20)),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_wrong_bitmaps_are_refused(tmp_path: Path, wrong: np.ndarray) -> None:
    np.save(tmp_path / "cat.npy", wrong)
    with pytest.raises(DataError) as error:
        prepare(bitmap_spec(tmp_path), tmp_path / "cache")
    one_line_naming(error, "cat.npy")


@given(data=st.data())
@SAME_FOLDER
def test_a_damaged_bitmap_file_gives_one_line_or_images(data: st.DataObject, tmp_path: Path) -> None:
    good = tmp_path / "good.npy"
    np.save(good, np.random.default_rng(0).integers(0, 256, (8, 784), dtype=np.uint8))
    (tmp_path / "cat.npy").write_bytes(_damage(data, good.read_bytes()))
    found = outcome(bitmap_spec(tmp_path), tmp_path / "cache")
    if isinstance(found, DataError):
        assert "\n" not in str(found)
        assert "cat.npy" in str(found)
    else:
        assert found.train.image_BHW.shape == (5, 28, 28)


# --- where files are sought -------------------------------------------------------------------------------------------


def test_an_absent_file_is_named_with_both_remedies(tmp_path: Path, downloads: Path) -> None:
    for root, place in ((str(tmp_path), tmp_path), (None, downloads / "quickdraw")):
        with pytest.raises(DataError) as error:
            prepare(QuickDrawData(classes=("hot dog",), root=root), tmp_path / "cache")
        one_line_naming(error, str(place / "hot dog.npz"), "download: true", "smoe-ray data fetch 'hot dog'")


def test_files_are_read_from_a_uri_and_fetched_again_only_when_they_change(tmp_path: Path, downloads: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    pixels = np.random.default_rng(0).integers(0, 256, (8, 784), dtype=np.uint8)
    np.save(tmp_path / "cat.npy", pixels)
    memory.pipe("/drawings/cat.npy", (tmp_path / "cat.npy").read_bytes())
    spec = bitmap_spec("memory://drawings", ink="white_on_black")
    first = load_splits(spec, tmp_path / "cache")
    assert np.array_equal(first.train.image_BHW.reshape(-1, 784), pixels[:5])
    load_splits(spec, tmp_path / "cache")
    assert len(list((downloads / "remote").glob("[!.]*"))) == 1

    np.save(tmp_path / "cat.npy", 255 - pixels)
    memory.pipe("/drawings/cat.npy", (tmp_path / "cat.npy").read_bytes())
    second = load_splits(spec, tmp_path / "cache")
    assert np.array_equal(second.train.image_BHW, 255 - first.train.image_BHW)
    assert first.fingerprint != second.fingerprint

    local = load_splits(bitmap_spec(tmp_path.as_uri(), ink="white_on_black"), tmp_path / "cache")
    assert local.fingerprint == second.fingerprint
    for uri in ("memory://elsewhere", f"{tmp_path.as_uri()}/elsewhere"):
        with pytest.raises(DataError) as error:
            load_splits(bitmap_spec(uri), tmp_path / "cache")
        one_line_naming(error, f"{uri}/cat.npy", "no such file")
    with pytest.raises(DataError) as error:
        load_splits(bitmap_spec("nonsense://x"), tmp_path / "cache")
    one_line_naming(error, "nonsense://x", "data.root")
