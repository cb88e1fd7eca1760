"""The public names: all of them resolve, none hides another, and no derivative goes untested."""

import ast
import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from cases import ACTIVATIONS, LOSSES

import lr_nn
from lr_nn.activations import Activation
from lr_nn.losses import Loss

ROWS = {Activation: [row.activation for row in ACTIVATIONS.values()], Loss: [row.loss for row in LOSSES.values()]}


def run(code):
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def concrete(base):
    below = {c for sub in base.__subclasses__() for c in {sub, *concrete(sub)}}
    return {c for c in below if c.__module__.startswith("lr_nn.") and not inspect.isabstract(c)}


@pytest.mark.parametrize("name", lr_nn.__all__)
def test_every_public_name_resolves_and_is_documented(name):
    value = getattr(lr_nn, name)
    assert inspect.getdoc(value)
    assert inspect.ismodule(value) == (name in lr_nn._MODULES)


def test_the_listing_is_the_public_names():
    assert dir(lr_nn) == sorted(set(lr_nn.__all__)) == lr_nn.__all__
    with pytest.raises(AttributeError, match="'lr_nn' has no attribute 'regression'"):
        _ = lr_nn.regression


@pytest.mark.parametrize("base", ROWS, ids=lambda base: base.__name__)
def test_every_class_with_a_derivative_has_a_row_in_the_cases(base):
    missing = concrete(base) - {type(row) for row in ROWS[base]}
    assert not missing, f"no row in cases.py for {missing}"


@pytest.mark.parametrize(("room", "base"), [("activations", Activation), ("losses", Loss)])
def test_every_ready_made_activation_and_loss_has_a_row_in_the_cases(room, base):
    ready = {name: value for name, value in vars(import_module(f"lr_nn.{room}")).items() if isinstance(value, base)}
    assert ready and not [name for name, value in ready.items() if value not in ROWS[base]]
    names = [value.name for value in ready.values()]
    assert names == list(ready), "a ready-made value goes by its own name"


def test_importing_the_package_imports_no_jax():
    run("import sys, lr_nn; assert not {'jax', 'jaxlib', 'numpy', 'optax'} & set(sys.modules), 'not lazy'")


def test_no_module_has_the_name_of_a_public_function():
    """Importing the module would overwrite the function; so every module is imported, and every name looked up."""
    run(
        "import importlib, inspect, pkgutil, types, lr_nn\n"
        "public = {name: getattr(lr_nn, name) for name in lr_nn.__all__}\n"
        "packages = [module for module in public.values() if inspect.ismodule(module)]\n"
        "inner = {(m.__name__, n): getattr(m, n) for m in packages for n in getattr(m, '__all__', ())}\n"
        "for module in pkgutil.walk_packages(lr_nn.__path__, 'lr_nn.'):\n"
        "    if not module.name.endswith('__main__'):\n"
        "        importlib.import_module(module.name)\n"
        "assert all(getattr(lr_nn, name) is value for name, value in public.items())\n"
        "assert all(getattr(importlib.import_module(m), n) is value for (m, n), value in inner.items())\n"
        "assert type(lr_nn) is types.ModuleType\n"
    )


@pytest.mark.parametrize("name", lr_nn._MODULES)
def test_every_public_module_lists_its_public_names(name):
    module = getattr(lr_nn, name)
    assert module.__all__ and all(hasattr(module, public) for public in module.__all__)


def test_names_for_type_checkers_are_those_of_the_lazy_table():
    tree = ast.parse(Path(lr_nn.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If) and node.test.id == "TYPE_CHECKING"]
    imported = {(node.module, alias.name) for node in block.body for alias in node.names}
    table = {("lr_nn", room) for room in lr_nn._MODULES}
    table |= {(f"lr_nn.{room}", name) for room, names in lr_nn._NAMES.items() for name in names}
    assert imported == table


def test_a_public_name_lives_where_the_table_says():
    for room, names in lr_nn._NAMES.items():
        module = import_module(f"lr_nn.{room}")
        for name in names:
            home = getattr(module, name).__module__
            assert home == module.__name__ or home.startswith(f"{module.__name__}."), (name, home)
