"""An experiment run by a test, and its record read back."""

import json

import jax

from experiments.__main__ import main


def run(name, folder, *arguments):
    """Run an experiment and return its record by kind. A step of optax fails strict promotion."""
    with jax.numpy_dtype_promotion("standard"):
        assert main([name, *map(str, arguments), "--out", str(folder)]) == 0
    record = {}
    for line in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines()):
        record.setdefault(line.pop("kind"), []).append(line)
    assert (folder / "report.html").stat().st_size > 10_000 and list((folder / "figures").glob("*.png"))
    return record
