"""Formats of model folders and of what the command line reads, for the engine that damages files."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import jax.numpy as jnp
import numpy as np

import lr_nn
from benchmarks.fuzz import Format
from benchmarks.fuzz_tables import example
from lr_nn import data
from lr_nn.cli import main

TABLE, MODEL = "new.csv", "model"


def write_model(folder: Path, rng: np.random.Generator) -> Path:
    """A model of the table, as if it had been fitted."""
    table = data.frame(example(rng))
    schema = data.learn(table, "sold", missing="indicator")
    net = lr_nn.logistic_regression(len(schema.features))
    layer = lr_nn.types.Layer(*(jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in (net.shapes[0], 1)))
    lr_nn.save_model(folder / MODEL, net, (layer,), schema=schema)
    return folder / MODEL


def write_table(folder: Path, rng: np.random.Generator) -> Path:
    """A table as CSV."""
    import pandas

    pandas.DataFrame(example(rng)).to_csv(folder / TABLE, index=False)
    return folder / TABLE


def write_both(folder: Path, rng: np.random.Generator) -> Path:
    """A model and a table that it fits."""
    write_model(folder, rng)
    return write_table(folder, rng).parent


def call(folder: Path, *arguments: str) -> None:
    """Run the command; ValueError where it tells of a mistake, AssertionError where it does what it must not."""
    before = {path for path in folder.rglob("*") if path.exists()}
    said = io.StringIO()
    with redirect_stdout(io.StringIO()), redirect_stderr(said):
        code = main(arguments)
    new = {path for path in folder.rglob("*") if path.exists()} - before
    assert code in (0, 1, 2), f"exit code {code}: {said.getvalue()}"
    assert "Traceback" not in said.getvalue(), said.getvalue()
    if code == 2:
        assert not new, f"left behind: {new}"
        raise ValueError(said.getvalue().strip())


def check(path: Path) -> None:
    """lr-nn check."""
    call(path.parent, "check", str(path), "--target", "sold")


def predict(folder: Path) -> None:
    """lr-nn predict."""
    call(folder, "predict", str(folder / MODEL), str(folder / TABLE), "--out", str(folder / "p.csv"))


def load(path: Path) -> None:
    """A model that loads is whole: it predicts."""
    model = lr_nn.load_model(path)
    assert np.isfinite(model.predict(np.zeros((1, model.net.sizes[0])))).all()


FORMATS: dict[str, Format] = {
    "model folder": Format(write_model, load),
    "lr-nn check": Format(write_table, check),
    "lr-nn predict": Format(write_both, predict),
}
