"""The public contract: every name is callable in its documented order, after any import and under any check of JAX."""

import importlib
import inspect
import pkgutil

import jax
import jax.numpy as jnp
import pytest
from contract import CORE, HOST

import lr_nn

# Compiled code is the subject here, not its speed: everything below runs on a dozen rows.
CALLS = CORE | HOST


def import_everything():
    for module in pkgutil.walk_packages(lr_nn.__path__, "lr_nn."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def assert_no_nan(found):
    """No NaN that JAX computed; an infinite certificate or epsilon is a value on the host."""
    for leaf in jax.tree.leaves(found):
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jnp.floating):
            assert not jnp.isnan(leaf).any()


@pytest.mark.parametrize("name", CALLS)
def test_every_function_of_the_contract_runs_as_documented_after_every_module_was_imported(name):
    import_everything()
    value = lr_nn
    for part in name.split("."):
        value = getattr(value, part)
    assert callable(value) and not inspect.ismodule(value)
    assert_no_nan(CALLS[name]())


@pytest.mark.parametrize("name", CALLS)
def test_every_function_of_the_contract_runs_while_jax_looks_for_nan_and_infinity(name):
    with jax.debug_nans(True), jax.debug_infs(True), jax.enable_checks(True):
        CALLS[name]()


@pytest.mark.parametrize("name", CORE)
def test_every_function_of_the_core_runs_without_compilation(name):
    with jax.disable_jit():
        assert_no_nan(CORE[name]())


# Functions that a file of their own tests: they need onnx, a folder, many processes, or seconds of an accountant.
ELSEWHERE = {"export_onnx", "load_model", "private.noise_multiplier"}
MODULES = (
    "curvature",
    "inference",
    "influence",
    "laplace",
    "objective",
    "penalties",
    "per_example",
    "private",
    "tangents",
    "taps",
)


def functions_of(module, prefix=""):
    return {prefix + name for name in module.__all__ if inspect.isfunction(getattr(module, name))}


def test_every_public_function_of_the_package_and_its_mathematical_modules_is_in_the_contract():
    top = functions_of(lr_nn)
    inner = set().union(*(functions_of(getattr(lr_nn, name), f"{name}.") for name in MODULES))
    public = top | {name for name in inner if name.split(".")[1] not in top}
    assert public - set(CALLS) == ELSEWHERE & public


@pytest.mark.parametrize("name", lr_nn._MODULES)
def test_the_listing_of_a_public_module_is_its_public_names(name):
    assert [entry for entry in dir(getattr(lr_nn, name)) if not entry.startswith("_")] == sorted(
        getattr(lr_nn, name).__all__
    )
