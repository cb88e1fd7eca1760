"""What cannot be read is refused by path, row and reason, before memory is taken, and nothing in it is ever run."""

import gzip
import os
import pickle
import sys
import tempfile
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks.fuzz import fuzz, outcome
from benchmarks.fuzz_arrays import FORMATS
from lr_nn import data
from lr_nn.data import in_place
from tests.test_readers import WRITERS, save_npy, save_npz

EXAMPLES = int(os.environ.get("LR_NN_FUZZ", "12"))

BAD = {
    "text": (b"not an array", "x.npy", "is not an array as np.save writes it"),
    "empty": (b"", "x.npy", "is empty"),
    "huge": (b"1 1:1e999\n", "a.svm", r"row 0 \(line 1\) has a number that is not finite"),
    "nan": (b"# no\n0 1:2\nnan 1:1\n", "a.svm", r"row 1 \(line 3\) has a number that is not finite"),
    "word": (b"0 1:2\n1 1:two\n", "a.svm", r"row 1 .*'two'"),
    "order": (b"0 3:1 2:1\n", "a.svm", "row 0 .* not in increasing order"),
    "twice": (b"0 3:1 3:1\n", "a.svm", "row 0 .*twice"),
    "two colons": (b"0 1:2:3 4\n", "a.svm", "row 0 .* is not `label index:value"),
    "two labels": (b"0,1 1:2\n", "a.svm", "row 0"),
    "underscore": (b"0 1:1_0\n", "a.svm", "row 0 .* underscore"),
    "negative": (b"0 -1:1\n", "a.svm", "row 0 .* below 0"),
    "huge index": (b"0 123456789:1\n", "a.svm", "has an index 123456789, and rows come out dense.*features="),
    "larger index": (b"0 99999999999999999999:1\n", "a.svm", "row 0"),
    "comments": (b"# no\n\n", "a.svm", "has no rows"),
    "labels alone": (b"1\n2\n", "a.svm", "pass features="),
    "magic": (b"\x00\x01\x08\x03" + bytes(99), "a-ubyte", "is not an IDX file: it begins with 00 01 08 03"),
    "kind": (b"\x00\x00\x0a\x01" + bytes(99), "a-ubyte", "is not an IDX file"),
    "short": (b"\x00\x00\x08\x02\x00\x00\x00\x09\x00\x00\x00\x09" + bytes(80), "a-ubyte", r"\(9, 9\) .*81 bytes.* 80"),
    "giant": (b"\x00\x00\x0e\x03" + b"\xff" * 12, "a-ubyte", "truncated or damaged"),
    "giant, gzip": (gzip.compress(b"\x00\x00\x0e\x03" + b"\xff" * 12), "a-ubyte.gz", "truncated or damaged"),
    "cut gzip": (gzip.compress(b"\x00\x00\x08\x01\x00\x00\x00\x09" + bytes(9))[:-9], "a-ubyte.gz", "damaged"),
    "no zip": (b"PK", "a.npz", "is not a zip file"),
    "no HDF5": (b"text", "a.h5", "is not an HDF5 file"),
    "table": (b"a,b\n", "a.csv", r"is a table.*data\.open_table"),
    "suffix": (b"a,b\n", "a.xyz", "no suffix that tells what it is"),
}


@pytest.mark.parametrize("content, name, message", BAD.values(), ids=list(BAD))
def test_bad_files_are_refused_by_path_and_reason(tmp_path, content, name, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as refusal:
        data.open_rows(tmp_path / name)
    assert str(tmp_path / name) in str(refusal.value)


@pytest.mark.parametrize("name", ["x.npy", "a.npz", "a.h5", "a.svm", "a-ubyte"])
def test_what_is_no_file_is_refused(tmp_path, name):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        data.open_rows(tmp_path / name)
    (tmp_path / name).mkdir()
    with pytest.raises(IsADirectoryError, match="is a folder"):
        data.open_rows(tmp_path / name)
    (tmp_path / name).rmdir()
    os.mkfifo(tmp_path / name)
    with pytest.raises(OSError, match="is a pipe"):
        data.open_rows(tmp_path / name)


class Trap:
    """Unpickling it is seen."""

    sprung = False

    def __reduce__(self):
        return setattr, (Trap, "sprung", True)


def test_objects_are_never_unpickled(tmp_path):
    objects = np.array([[Trap()]], dtype=object)
    for write in (save_npy, save_npz, WRITERS["npz, compressed"]):
        with pytest.raises(ValueError, match="holds object"):
            write(tmp_path, x=objects)
    (tmp_path / "y.npy").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ValueError, match="not an array"):
        data.npy(tmp_path / "y.npy")
    assert not Trap.sprung


@pytest.mark.parametrize("write", WRITERS.values(), ids=list(WRITERS))
@pytest.mark.parametrize(
    "x, message",
    [
        (np.array([["a"]], "S1"), "holds|real numbers"),
        (np.ones((2, 2), complex), "real numbers"),
        (np.ones((0, 2)), "at least one"),
        (np.ones((2, 0)), "at least one|without entries"),
        (np.ones(3), r"\(n, d\)"),
    ],
)
def test_arrays_that_are_no_rows_of_numbers_are_refused(tmp_path, write, x, message):
    with pytest.raises(ValueError, match=message) as refusal:
        write(tmp_path, x=x)
    assert str(tmp_path) in str(refusal.value)


def test_arrays_of_other_lengths_are_refused_by_file(tmp_path):
    with pytest.raises(ValueError, match=r"x\.npy: y must have shape .* n = 4"):
        save_npy(tmp_path, x=np.ones((4, 2)), y=np.ones(3))


def test_options_that_a_reader_does_not_take_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((4, 2)))
    with pytest.raises(ValueError, match="opened by npy, which takes y, weight, offset; got features"):
        data.open_rows(tmp_path / "x.npy", features=2)


def test_features_and_base_of_libsvm_bind(tmp_path):
    path = tmp_path / "a.svm"
    path.write_text("1 2:1\n0 4:1\n")
    assert data.libsvm(path, features=9).read(0, 1).x.tolist() == [[0, 1, 0, 0, 0, 0, 0, 0, 0]]
    assert data.libsvm(path, base=0).read(0, 1).x.tolist() == [[0, 0, 1, 0, 0]]
    with pytest.raises(ValueError, match=r"row 1 has the index 4; expected .* to 3"):
        data.libsvm(path, features=3)
    with pytest.raises(ValueError, match="row 1 has the index 4; expected 0 to 3"):
        data.libsvm(path, features=4, base=0)


def test_a_header_that_states_more_than_there_is_takes_no_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["lr_nn.data.hdf5"], "LARGEST_CHUNKS", 2**20)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", shape=(2**40, 2**10), dtype="f8", chunks=(1024, 1024))
    with pytest.raises(ValueError, match=r"never written, .* truncated"):
        data.hdf5(tmp_path / "a.h5")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_dataset("x", shape=(2**11, 2**11), dtype="u1", chunks=(2**11, 2**11), compression=1)
        file["x"][0, 0] = 1
    with pytest.raises(ValueError, match=r"in chunks of .* smaller ones"):
        data.hdf5(tmp_path / "b.h5")
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("x.npy", b"0" * 1000)
    with pytest.raises(ValueError, match="compressed in a way that NumPy does not write"):
        data.npz(tmp_path / "a.npz")


def test_a_picture_that_states_a_long_chunk_takes_no_memory(tmp_path):
    (tmp_path / "one").mkdir()
    Image.new("RGB", (6, 8)).save(tmp_path / "one" / "a.png")
    content = (tmp_path / "one" / "a.png").read_bytes()
    assert content[37:41] == b"IDAT"
    (tmp_path / "one" / "a.png").write_bytes(content[:33] + b"\x7f\xff\xff\xff" + content[37:])
    outcome(FORMATS["images, png"], tmp_path)  # raises MemoryError where two gigabytes are taken


def test_a_disk_that_fails_is_told_with_the_path(tmp_path, monkeypatch):
    rows = save_npy(tmp_path, x=np.ones((4, 2)))

    def fail(self, *_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(in_place.File, "_fill", fail)
    with pytest.raises(OSError, match=r"x\.npy cannot be read from byte .*Input/output error"):
        rows.read(0, 1)


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=EXAMPLES)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_damaged_file_is_read_or_refused(name, seed):
    with tempfile.TemporaryDirectory() as folder:
        fuzz(FORMATS[name], seed, Path(folder))


@pytest.mark.parametrize("name", ["x.npy", "a.npz", "a.h5", "a.svm", "a-ubyte", "a-ubyte.gz", "c/a.png", "c/a.jpg"])
@settings(max_examples=EXAMPLES)
@given(content=st.binary(max_size=200) | st.text(max_size=50).map(str.encode))
def test_any_bytes_are_read_or_refused(name, content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        outcome(FORMATS["npy"], Path(folder) if "/" in name else path)


@pytest.mark.parametrize("library, name", [("h5py", "a.h5"), ("PIL", "c/a.png")])
def test_a_missing_library_is_named_with_its_extra(tmp_path, monkeypatch, library, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"something")
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=r'pip install "lr-nn\[data\]"'):
        data.open_rows(tmp_path if "/" in name else path)
