"""Every reader gives the array that its file was written from, and refuses what it cannot read with one clear error."""

import gzip
import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from lr_nn import data

EXAMPLES = int(os.environ.get("LR_NN_FUZZ", "12"))
FOLDER = os.environ.get("LR_NN_DATA")
DTYPES = [np.float32, np.float64, np.float16, np.int64, np.int16, np.uint8, np.bool_, ">f8", ">i4"]


def save_npy(folder, **arrays):
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return data.npy(*(folder / f"{name}.npy" if name in arrays else None for name in ("x", "y", "weight", "offset")))


def save_npz(folder, save=np.savez, **arrays):
    save(folder / "a.npz", **arrays)
    return data.open_rows(folder / "a.npz")


def save_hdf5(folder, userblock_size=0, compression=None, **arrays):
    with h5py.File(folder / "a.h5", "w", userblock_size=userblock_size) as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array, compression=compression)
    return data.open_rows(folder / "a.h5")


WRITERS = {
    "npy": save_npy,
    "npz": save_npz,
    "npz, compressed": lambda folder, **a: save_npz(folder, np.savez_compressed, **a),
    "hdf5": save_hdf5,
    "hdf5, after a user's block": lambda folder, **a: save_hdf5(folder, 1024, **a),
    "hdf5, chunks": lambda folder, **a: save_hdf5(folder, compression="gzip", **a),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=list(WRITERS))
@given(drawn=st.data())
def test_a_reader_gives_the_array_that_was_written(write, drawn):
    dtype, shape = drawn.draw(st.sampled_from(DTYPES)), drawn.draw(hnp.array_shapes(min_dims=2, max_dims=4, max_side=9))
    x = drawn.draw(hnp.arrays(dtype, shape))
    x = np.asfortranarray(x) if len(shape) == 2 and drawn.draw(st.booleans()) else x
    given_arrays = {"x": x, "y": np.arange(len(x)), "weight": np.ones(len(x)), "offset": np.ones((len(x), 2))}
    start = drawn.draw(st.integers(0, len(x) - 1))
    stop = drawn.draw(st.integers(start + 1, len(x)))
    with tempfile.TemporaryDirectory() as folder:
        rows = write(Path(folder), **given_arrays)
        assert len(rows) == len(x) and len(rows.features) == x[0].size
        read = rows.read(start, stop)
    for got, array in zip(read, given_arrays.values(), strict=True):
        assert got.dtype == array.dtype.newbyteorder("=")
        np.testing.assert_array_equal(got, array.reshape(len(x), -1)[start:stop].reshape(got.shape))


def lines_of(x, y, base):
    pairs = [" ".join(f"{j + base}:{v!r}" for j, v in enumerate(row) if v) for row in x.tolist()]
    return [f"{label!r} {line}" for label, line in zip(y.tolist(), pairs)]


NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.just(0.0)


@given(hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=NUMBERS), st.booleans())
def test_libsvm_gives_every_bit_of_what_was_written(x, whole):
    x = np.concatenate([x, np.ones((1, x.shape[1]))])  # so that the first and the last index occur
    y = np.arange(len(x)) if whole else np.arange(len(x)) / 3
    for base in (0, 1):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "a.svm")
            path.write_text("\n".join(lines_of(x, y, base)))
            rows = data.open_rows(path)
            read = rows.read(0, len(rows))
        np.testing.assert_array_equal(read.x, x)
        np.testing.assert_array_equal(read.y, y)
        assert read.y.dtype == y.dtype and rows.features[0] == f"x{base}"


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_libsvm_finds_rows_again_among_comments_and_empty_lines(tmp_path, monkeypatch, end):
    monkeypatch.setattr(sys.modules["lr_nn.data.libsvm"], "PIECE", 500)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 5)).round(3) * (rng.random((300, 5)) < 0.6)
    lines = lines_of(x, np.arange(300), 1)
    text = ["\ufeff# a file", ""]
    for i, line in enumerate(lines):
        label, _, pairs = line.partition(" ")
        text += [f"{label} qid:{i // 7} {pairs} # row {i}: 9:9"] + [""] * (i % 3)
    (tmp_path / "a.libsvm").write_bytes(end.join(text).encode())
    rows = data.libsvm(tmp_path / "a.libsvm", features=5)
    for start, stop in [(0, 300), (63, 65), (64, 128), (299, 300), (130, 200)]:
        batch = rows.read(start, stop)
        np.testing.assert_array_equal(batch.x, x[start:stop])
        np.testing.assert_array_equal(batch.y, np.arange(start, stop))


def idx_bytes(array, code):
    lengths = b"".join(length.to_bytes(4, "big") for length in array.shape)
    return bytes([0, 0, code, array.ndim]) + lengths + array.astype(array.dtype.newbyteorder(">")).tobytes()


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("code, kind", [(8, "u1"), (9, "i1"), (11, "i2"), (12, "i4"), (13, "f4"), (14, "f8")])
def test_idx_gives_the_images_and_labels_that_were_written(tmp_path, code, kind, suffix):
    pixels, labels = np.arange(120).reshape(10, 4, 3).astype(kind), np.arange(10).astype(np.uint8)
    pack = gzip.compress if suffix else bytes
    images, of = tmp_path / f"images-idx3-ubyte{suffix}", tmp_path / f"labels-idx1-ubyte{suffix}"
    images.write_bytes(pack(idx_bytes(pixels, code)))
    of.write_bytes(pack(idx_bytes(labels, 8)))
    batch = data.open_rows(images, labels=of).read(2, 9)
    expected = pixels.reshape(10, 12)[2:9]
    if code == 8:
        expected = expected.astype(np.float32) / np.float32(255)
    assert batch.x.dtype == expected.dtype
    np.testing.assert_array_equal(batch.x, expected)
    np.testing.assert_array_equal(batch.y, labels[2:9])
    with pytest.raises(ValueError, match="is it the file of labels"):
        data.idx(of)
    with pytest.raises(ValueError, match="is it the file of images"):
        data.idx(images, images)


def write_pictures(folder, pictures, suffix=".png"):
    for name, arrays in pictures.items():
        (folder / name).mkdir(parents=True)
        for i, array in enumerate(arrays):
            Image.fromarray(array).save(folder / name / f"{i}{suffix}")


def pictures(*shape, count=3, seed=0):
    rng = np.random.default_rng(seed)
    return {name: [rng.integers(0, 256, shape, np.uint8) for _ in range(count)] for name in ("dog", "cat")}


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 3), (5, 4, 4)])
def test_pictures_are_those_of_the_folder_in_order(tmp_path, shape):
    made = pictures(*shape)
    write_pictures(tmp_path, made)
    (tmp_path / ".hidden").write_text("passed over")
    rows = data.open_rows(tmp_path)
    assert rows.classes == ("cat", "dog")
    batch = rows.read(0, 6)
    expected = np.stack([array[:, :, :3] if array.ndim == 3 else array for array in made["cat"] + made["dog"]])
    expected = expected.reshape(6, -1)
    np.testing.assert_array_equal(batch.x, expected.astype(np.float32) / np.float32(255))
    assert batch.y.tolist() == [0, 0, 0, 1, 1, 1]
    np.testing.assert_array_equal(rows.read(4, 5).x, batch.x[4:5])


def test_pictures_of_other_sizes_are_named_and_scaled_where_asked(tmp_path):
    write_pictures(tmp_path, {"a": pictures(6, 4)["dog"], "b": pictures(8, 8)["dog"] + pictures(6, 4, 3)["dog"]})
    with pytest.raises(ValueError, match=r"0\.png is 8 by 8 pixels, .*6 by 4.* pass size=\(6, 4\)"):
        data.image_folder(tmp_path)
    batch = data.open_rows(tmp_path, size=(6, 4)).read(0, 9)
    assert batch.x.shape == (9, 6 * 4 * 3) and batch.x.min() >= 0 and batch.x.max() <= 1
    grey = np.repeat(pictures(6, 4)["dog"][0].reshape(-1), 3).astype(np.float32) / 255
    np.testing.assert_allclose(batch.x[0], grey, rtol=1e-6)
    with pytest.raises(ValueError, match="size must be"):
        data.image_folder(tmp_path, size=(0, 4))


def test_a_broken_picture_is_refused_by_name(tmp_path):
    write_pictures(tmp_path, pictures(50, 50))
    path = tmp_path / "dog" / "1.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"dog/1\.png is not a picture, or a broken one"):
        data.image_folder(tmp_path).read(3, 6)
    path.write_bytes(b"text")
    with pytest.raises(ValueError, match=r"dog/1\.png is not a picture"):
        data.image_folder(tmp_path)
    path.rename(tmp_path / "dog" / "notes.txt")
    with pytest.raises(ValueError, match=r"notes\.txt is no picture"):
        data.image_folder(tmp_path)


@pytest.mark.skipif(not FOLDER, reason="LR_NN_DATA is not set; CI sets it")
def test_the_data_sets_of_the_package_open():
    path = Path(FOLDER, "train_catvnoncat.h5")
    rows = data.open_rows(path, x="train_set_x", y="train_set_y")
    with h5py.File(path) as file:
        np.testing.assert_array_equal(rows.read(5, 9).x, file["train_set_x"][5:9].reshape(4, -1))
        np.testing.assert_array_equal(rows.read(0, 209).y, file["train_set_y"][:])
    with pytest.raises(ValueError, match=r"no array 'x' for x; it has .* train_set_x \(209, 64, 64, 3\)"):
        data.hdf5(path)
    name = "t10k-{}-ubyte.gz".format
    rows = data.open_rows(Path(FOLDER, name("images-idx3")), labels=Path(FOLDER, name("labels-idx1")))
    assert len(rows) == 10000 and np.bincount(rows.read(0, 10000).y).tolist()[:3] == [980, 1135, 1032]


def test_threads_read_at_once(tmp_path):
    x = np.random.default_rng(0).normal(size=(2000, 3))
    for name, write in WRITERS.items():
        folder = tmp_path / name
        folder.mkdir()
        rows = write(folder, x=x)
        with ThreadPoolExecutor(4) as pool:
            read = list(pool.map(lambda start, rows=rows: rows.read(start, start + 50).x, range(0, 2000, 50)))
        np.testing.assert_array_equal(np.concatenate(read), x)


def test_what_is_held_in_memory_is_said(tmp_path):
    x = np.ones((4, 2))
    assert save_npz(tmp_path, x=x).notes == ()
    assert "x compressed, and held in memory" in save_npz(tmp_path, np.savez_compressed, x=x).notes[0]
