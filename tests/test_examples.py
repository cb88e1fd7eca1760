"""Every example of docs/examples runs at a small size, and what it claims holds there."""

import importlib.util
from pathlib import Path

import jax
import pytest

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))


def load(path):
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _as_users_have_it():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_keeps_its_claim(path, capsys, monkeypatch):
    monkeypatch.delenv("LR_NN_DATA", raising=False)
    example = load(path)
    assert example.__doc__ and example.main.__doc__
    result = example.main(**getattr(example, "SMALL", {}))
    assert capsys.readouterr().out.strip()
    if hasattr(example, "check"):
        example.check(result)


def test_every_example_is_listed():
    listed = (FOLDER / "README.md").read_text()
    assert EXAMPLES and not [path.name for path in EXAMPLES if f"({path.name})" not in listed]
