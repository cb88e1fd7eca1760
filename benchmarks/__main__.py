"""`python -m benchmarks NAME`: measure a claim of this package and leave the record in benchmarks/results."""

from __future__ import annotations

import sys
from importlib import import_module

NAMES = {
    "gradient": "hand-written against automatic gradients, formulations, batched training, epochs against peers",
    "per_example": "norms, clipping and moments of per-example gradients against vmap(grad)",
    "taps": "norms and clipping of a transformer's per-example gradients against vmap(grad), jax-privacy and Opacus",
    "curvature": "Hessian and Gauss-Newton products, diagonals and factors against autodiff",
    "uncertainty": "Laplace approximations against laplace-torch and laplax; influence functions and retraining",
    "cold": "first calls in a fresh process: their time, and the programs that are compiled for them",
    "fit": "one model to a certified gap, against scikit-learn, glum, skglm and optax",
    "many": "thousands of models in one call, against joblib, LogisticRegressionCV and paths of skglm, glum, celer",
    "implicit": "derivatives of fits by their data, against glmax and an unrolled Newton's method",
    "scale": "files larger than memory, devices and processes, kills, damage, fuzz; how time and memory grow",
    "audit": "wrong backward passes killed by the audit, check_grads and chex, and their false alarms on right ones",
    "readme": "write the table of the README from the committed records",
}


def main() -> None:
    """Run the benchmark named first on the command line; its own --help tells its options."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name not in NAMES:
        print("usage: python -m benchmarks NAME [options]\n")
        print("\n".join(f"  {known:12s} {line}" for known, line in NAMES.items()))
        sys.exit(0 if name in ("-h", "--help") else f"\nunknown benchmark {name!r}")
    import tyro

    tyro.cli(import_module(f"benchmarks.{name}").main, prog=f"python -m benchmarks {name}", args=sys.argv[2:])


if __name__ == "__main__":
    main()
