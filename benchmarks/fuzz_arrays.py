"""The formats of arrays that are fuzzed: a valid small file of each, and its reader."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.fuzz import Format
from lr_nn import data

ROWS, BLOCK = 40, 16
KINDS = (np.float32, np.float64, np.int16, np.uint8, np.bool_, ">f8")


def whole(rows: data.Rows) -> None:
    """Every row, in blocks, and what is wrong with them."""
    for _ in data.blocks(rows, BLOCK):
        pass
    data.problems(rows)
    rows.fingerprint()


def example(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """x of some dtype and order, labels, and half of the time weights."""
    x = np.asarray(100 * rng.normal(size=(ROWS, 3)), KINDS[rng.integers(len(KINDS))])
    arrays = {"x": np.asfortranarray(x) if rng.random() < 0.3 else x, "y": rng.integers(0, 2, ROWS)}
    return arrays | ({"weight": rng.random(ROWS)} if rng.random() < 0.5 else {})


def write_npy(folder: Path, rng: np.random.Generator) -> Path:
    """x.npy alone."""
    np.save(folder / "x.npy", example(rng)["x"])
    return folder / "x.npy"


def write_npz(folder: Path, rng: np.random.Generator, save: Callable[..., None]) -> Path:
    """All arrays, by np.savez or np.savez_compressed."""
    save(folder / "a.npz", **example(rng))
    return folder / "a.npz"


def write_hdf5(folder: Path, rng: np.random.Generator, **how: object) -> Path:
    """All arrays, contiguous or in chunks."""
    import h5py

    with h5py.File(folder / "a.h5", "w") as file:
        for name, array in example(rng).items():
            file.create_dataset(name, data=array, **how)
    return folder / "a.h5"


def write_libsvm(folder: Path, rng: np.random.Generator) -> Path:
    """With comments, a qid and empty lines."""
    x, base = rng.normal(size=(ROWS, 5)) * (rng.random((ROWS, 5)) < 0.5), int(rng.integers(2))
    pairs = [" ".join(f"{j + base}:{v:.4g}" for j, v in enumerate(row) if v) for row in x]
    lines = [f"{i % 3} {'qid:1 ' if base else ''}{pair} # row {i}" for i, pair in enumerate(pairs)]
    (folder / "a.svm").write_text("\n\n".join(lines) + "\n")
    return folder / "a.svm"


def write_idx(folder: Path, rng: np.random.Generator, pack: Callable[[bytes], bytes], suffix: str) -> Path:
    """Images of 4 by 3 bytes, in gzip or plain."""
    header = bytes([0, 0, 8, 3]) + b"".join(length.to_bytes(4, "big") for length in (ROWS, 4, 3))
    path = folder / f"a-images-idx3-ubyte{suffix}"
    path.write_bytes(pack(header + rng.bytes(ROWS * 12)))
    return path


def write_images(folder: Path, rng: np.random.Generator, suffix: str) -> Path:
    """Two classes of two pictures, 8 by 6."""
    from PIL import Image

    for name in ("one", "two"):
        (folder / name).mkdir()
        for i in range(2):
            Image.fromarray(rng.integers(0, 256, (8, 6, 3), np.uint8)).save(folder / name / f"{i}{suffix}")
    return folder


def read(path: Path) -> None:
    """As the command line does."""
    whole(data.open_rows(path))


FORMATS: dict[str, Format] = {
    "npy": Format(write_npy, read),
    "npz": Format(partial(write_npz, save=np.savez), read),
    "npz, compressed": Format(partial(write_npz, save=np.savez_compressed), read),
    "HDF5": Format(write_hdf5, read),
    "HDF5, compressed": Format(partial(write_hdf5, chunks=True, compression="gzip", shuffle=True), read),
    "LIBSVM": Format(write_libsvm, read),
    "IDX": Format(partial(write_idx, pack=bytes, suffix=""), read),
    "IDX, gzip": Format(partial(write_idx, pack=gzip.compress, suffix=".gz"), read),
    **{
        f"images, {s[1:]}": Format(partial(write_images, suffix=s), read)
        for s in (".png", ".jpg", ".bmp", ".gif", ".tif")
    },
}
