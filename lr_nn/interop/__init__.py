"""Conversion to and from other libraries: `flax` and `sklearn` (each needs its own extra), and `conventions`."""

from importlib import import_module
from types import ModuleType

__all__ = ["conventions", "flax", "sklearn"]


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> ModuleType:
    if name not in __all__:
        raise AttributeError(f"module 'lr_nn.interop' has no attribute {name!r}")
    return import_module(f"lr_nn.interop.{name}")
