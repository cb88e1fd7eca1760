"""The data of the experiments, read as they come: features in float32, and how to draw a row as a picture."""

from __future__ import annotations

import gzip
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from experiments.runner import UserError

if TYPE_CHECKING:
    import numpy as np

VARIABLE = "LR_NN_DATA"
TEST_SHARE = 0.2
DIABETES_FEATURES = (
    "age",
    "sex",
    "body mass index",
    "blood pressure",
    "total cholesterol",
    "LDL",
    "HDL",
    "cholesterol / HDL",
    "log triglycerides",
    "blood sugar",
)
CENSUS_COLUMNS = (
    "age",
    "workclass",
    "sampling weight",
    "education",
    "years of education",
    "marital status",
    "occupation",
    "relationship",
    "race",
    "sex",
    "capital gain",
    "capital loss",
    "hours a week",
    "country",
    "income",
)
CENSUS_NUMBERS = ("age", "years of education", "capital gain", "capital loss", "hours a week")
CENSUS_CATEGORIES = ("workclass", "marital status", "occupation", "relationship", "race", "sex", "country")


class Part(NamedTuple):
    """Rows `x` (n, d) in float32 and their targets `y` (n,): integers for classes, float32 for values."""

    x: np.ndarray
    y: np.ndarray


@dataclass(frozen=True)
class Dataset:
    """Training and test rows.

    image_shape: (height, width) or (height, width, 3) of a row seen as a picture, else None. classes: what the
    labels 0, 1, ... stand for. features: names of the columns; references: levels that have none, with which the others
    are compared. A standardised target is y · scale + mean in `unit`.
    """

    name: str
    train: Part
    test: Part
    image_shape: tuple[int, ...] | None = None
    classes: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    mean: float = 0.0
    scale: float = 1.0
    unit: str = ""


def digits(seed: int) -> Dataset:
    """scikit-learn's 1,797 handwritten digits of 8×8 pixels, scaled to [0, 1]; a fifth is kept for the test."""
    import numpy as np
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    train, test = split(Part((x / 16).astype(np.float32), y.astype(np.int32)), seed)
    return Dataset("digits", train, test, (8, 8), tuple("0123456789"))


def diabetes(seed: int) -> Dataset:
    """scikit-learn's 442 diabetes patients; features and target standardised by the mean and scale of training."""
    import numpy as np
    from sklearn.datasets import load_diabetes

    train, test = split(Part(*load_diabetes(return_X_y=True, scaled=False)), seed)
    x_mean, x_scale = train.x.mean(axis=0), train.x.std(axis=0)
    mean, scale = float(train.y.mean()), float(train.y.std())
    train, test = (
        Part(((x - x_mean) / x_scale).astype(np.float32), ((y - mean) / scale).astype(np.float32))
        for x, y in (train, test)
    )
    return Dataset(
        "diabetes",
        train,
        test,
        features=DIABETES_FEATURES,
        mean=mean,
        scale=scale,
        unit="points of disease progression",
    )


def breast_cancer(seed: int) -> Dataset:
    """scikit-learn's 569 breast-cancer patients; 30 features standardised by the mean and scale of training."""
    import numpy as np
    from sklearn.datasets import load_breast_cancer

    loaded = load_breast_cancer()
    train, test = split(Part(loaded.data, loaded.target), seed)
    mean, scale = train.x.mean(axis=0), train.x.std(axis=0)
    train, test = (Part(((x - mean) / scale).astype(np.float32), y.astype(np.int32)) for x, y in (train, test))
    return Dataset("breast cancer", train, test, features=tuple(loaded.feature_names))


def census(folder: Path) -> Dataset:
    """32,561 + 16,281 people of the census of 1994: is the income above 50,000 dollars? The split is the published one.

    Numbers are standardised by the mean and scale of training. A category is a column for each level but the most
    frequent, named as `occupation: Sales`; a missing one is the level `unknown`. Left out are the sampling weight and
    the level of education, which says the same as its years.
    """
    import numpy as np

    train, test = (census_rows(find(folder, name)) for name in ("adult.data", "adult.test"))
    numbers = np.array([train[name] for name in CENSUS_NUMBERS], float)
    mean, scale = numbers.mean(axis=1), numbers.std(axis=1)
    levels, references = {}, []
    for name in CENSUS_CATEGORIES:
        values, counts = np.unique(train[name], return_counts=True)
        levels[name] = np.delete(values, counts.argmax())
        references.append(f"{name}: {values[counts.argmax()]}")

    def part(rows: dict[str, tuple[str, ...]]) -> Part:
        numbers = (np.array([rows[name] for name in CENSUS_NUMBERS], float).T - mean) / scale
        columns = [np.array(rows[name])[:, None] == levels[name] for name in CENSUS_CATEGORIES]
        x = np.concatenate([numbers, *columns], axis=1, dtype=np.float32)
        return Part(x, (np.array(rows["income"]) == ">50K").astype(np.int32))

    features = (*CENSUS_NUMBERS, *(f"{name}: {level}" for name in levels for level in levels[name]))
    classes = ("≤ 50,000", "> 50,000")
    return Dataset("census", part(train), part(test), classes=classes, features=features, references=tuple(references))


def census_rows(path: Path) -> dict[str, tuple[str, ...]]:
    """The columns of a file by name. Comments and empty lines are none of its rows, nor is a full stop of a label."""
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    lines = (line.rstrip(".") for line in text.splitlines() if line and not line.startswith("|"))
    rows = [[field.strip().replace("?", "unknown") for field in line.split(",")] for line in lines]
    if not rows or any(len(row) != len(CENSUS_COLUMNS) for row in rows):
        raise UserError(f"{path} must have {len(CENSUS_COLUMNS)} fields in every row")
    return dict(zip(CENSUS_COLUMNS, zip(*rows)))


def cat(folder: Path) -> Dataset:
    """209 + 50 photographs of 64×64×3 pixels, scaled by 1/255: is there a cat? The split is the published one."""
    import h5py
    import numpy as np

    def read(part: str) -> tuple[Part, tuple[str, ...]]:
        with h5py.File(find(folder, f"{part}_catvnoncat.h5")) as file:
            x, y = file[f"{part}_set_x"][:], file[f"{part}_set_y"][:]
            classes = tuple(name.decode().replace("non-cat", "no cat") for name in file["list_classes"][:])
        return Part(x.reshape(len(x), -1).astype(np.float32) / 255, y.astype(np.int32)), classes

    train, classes = read("train")
    return Dataset("cat", train, read("test")[0], (64, 64, 3), classes)


def mnist(folder: Path, seed: int) -> Dataset:
    """Images of 28×28 pixels in IDX files, scaled to [0, 1].

    With both parts there, 60,000 images train and 10,000 test. With one of them, a fifth of it is kept for the test.
    """
    import numpy as np

    def read(part: str) -> Part:
        images, labels = (idx(find(folder, f"{part}-{kind}-ubyte")) for kind in ("images-idx3", "labels-idx1"))
        if len(images) != len(labels):
            raise UserError(f"{folder} has {len(images)} images but {len(labels)} labels of the part {part}")
        return Part(images.reshape(len(images), -1).astype(np.float32) / 255, labels.astype(np.int32))

    parts = [part for part in ("train", "t10k") if present(folder, f"{part}-images-idx3-ubyte")]
    if len(parts) == 2:
        train, test = map(read, parts)
    else:
        train, test = split(read(parts[0] if parts else "t10k"), seed)
    return Dataset("mnist", train, test, (28, 28), tuple("0123456789"))


def idx(path: Path) -> np.ndarray:
    """The bytes of an IDX file, gzipped or not, in the shape that its header states.

    The header: two zero bytes, the type (8: unsigned byte), the number of axes, and each length in four bytes,
    the most significant first.
    """
    import numpy as np

    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise UserError(f"{path} is not an IDX file of bytes")
    start = 4 + 4 * content[3]
    shape = tuple(int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4))
    if len(content) - start != math.prod(shape):
        raise UserError(f"{path} states the shape {shape} but holds {len(content) - start} bytes")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def split(rows: Part, seed: int) -> tuple[Part, Part]:
    """A fifth of the rows, drawn by `seed`, for the test; the others to train on."""
    import numpy as np

    order = np.random.default_rng(seed).permutation(len(rows.x))
    held_out = round(TEST_SHARE * len(order))
    train, test = (Part(rows.x[rows_of], rows.y[rows_of]) for rows_of in (order[held_out:], order[:held_out]))
    return train, test


def directory(option: Path | None, dataset: str) -> Path:
    """The data directory: the option, else the environment variable. Raises UserError where there is none."""
    folder = option or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    how = (
        f"pass --data-dir FOLDER or set the environment variable {VARIABLE}; "
        "the embedded data need no folder: ladder --data digits, odds --data simulated"
    )
    if folder is None:
        raise UserError(f"the {dataset} data are read from a data directory, and none is set: {how}")
    if not folder.is_dir():
        raise UserError(f"the data directory {folder} does not exist: {how}")
    return folder


def present(folder: Path, name: str) -> Path | None:
    """The file of that name, or gzipped, or None."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def find(folder: Path, name: str) -> Path:
    """The file of that name, or gzipped. Raises UserError where there is none."""
    path = present(folder, name)
    if path is None:
        raise UserError(f"the data directory {folder} has no file {name}")
    return path
