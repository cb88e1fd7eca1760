"""The hand-written gradient: against autodiff, in four formulations, in many lanes, and over whole epochs."""

from __future__ import annotations

from benchmarks import activations, epoch, formulations, harness, lanes, mlp, thin

SECTIONS = {
    "mlp": (mlp.rows, "One gradient of a deep network; time relative to jax.value_and_grad"),
    "activations": (
        activations.rows,
        "Gradient and Hessian product by activation; time relative to autodiff",
    ),
    "thin": (thin.rows, "One gradient of a thin logistic model; time relative to whole-batch jax.value_and_grad"),
    "formulations": (formulations.rows, "Four ways to write one gradient; time relative to vectorised and jitted"),
    "lanes": (lanes.rows, "Training m networks 784-30-10; time relative to one after the other"),
    "epoch": (epoch.rows, "One epoch, 60,000 rows, batch 128; time relative to flax + optax in one scan"),
}


main = harness.command("gradient", SECTIONS)
