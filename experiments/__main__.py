"""`python -m experiments NAME [OPTIONS]`: finds the experiment and hands it to the runner.

Nothing is imported before it is known to be wanted, so that the list and every `--help` answer at once.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from experiments import runner, site

# Name on the command line -> module. What it asks is the first line of the module's docstring.
EXPERIMENTS = {
    "activations": "experiments.activations",
    "architecture_search": "experiments.architecture_search",
    "audit": "experiments.audit",
    "batch_size": "experiments.batch_size",
    "census": "experiments.census",
    "coin_toss": "experiments.coin_toss",
    "entropy": "experiments.entropy",
    "hard_examples": "experiments.hard_examples",
    "hidden_layer": "experiments.hidden_layer",
    "init_and_symmetry": "experiments.init_and_symmetry",
    "ladder": "experiments.ladder",
    "memory": "experiments.memory",
    "noise_scale": "experiments.noise_scale",
    "odds": "experiments.odds",
    "outliers": "experiments.outliers",
    "paths": "experiments.paths",
    "private_training": "experiments.private_training",
    "regularization": "experiments.regularization",
    "reverse_vs_forward": "experiments.reverse_vs_forward",
    "saturation": "experiments.saturation",
    "solvers": "experiments.solvers",
    "vectorization": "experiments.vectorization",
}


def question(module: str) -> str:
    """The first line of a module's docstring, read without importing it."""
    spec = find_spec(module)
    assert spec is not None and spec.origin is not None
    docstring = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""
    return docstring.split("\n")[0]


def questions() -> dict[str, str]:
    """What each experiment asks."""
    return {name: question(module) for name, module in sorted(EXPERIMENTS.items())}


def overview() -> str:
    """How to call, and every experiment with a line."""
    return f"""\
usage: python -m experiments NAME [OPTIONS]      (NAME --help lists its options)
       python -m experiments all [OPTIONS]       (every experiment, and a site of what they found)

{site.listing(questions())}"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment that `arguments` (default: the command line) ask for; return the exit status."""
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("-h", "--help"):
        print(overview())
        return 0
    if name == "all":
        return site.launch(rest, questions())
    if name not in EXPERIMENTS:
        print(f"error: there is no experiment {name!r}\n\n{overview()}", file=sys.stderr)
        return 2
    return runner.launch(name, import_module(EXPERIMENTS[name]), rest)


if __name__ == "__main__":
    sys.exit(main())
