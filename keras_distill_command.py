"""Entry point of the command `keras-distill`.

It stands beside the package so that help and wrong flags are answered at once: importing anything
inside the package runs its `__init__`, which imports TensorFlow, and that takes seconds.
"""

import importlib
import importlib.util
import sys
import types
from typing import Any


def run() -> None:
    """Runs the command with the arguments of the process, and exits."""
    if "keras_distill" not in sys.modules:
        _defer_init("keras_distill")
    # `from keras_distill import cli` would ask the package for a name, and so run its `__init__`.
    import keras_distill.cli as cli

    sys.exit(cli.main(sys.argv[1:]))


def _defer_init(name: str) -> None:
    """Makes a package's modules importable; its `__init__` runs once a name of its own is used."""
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise ImportError(f"There is no package {name}.")
    package = importlib.util.module_from_spec(spec)
    package.__class__ = _Deferred
    sys.modules[name] = package


class _Deferred(types.ModuleType):
    """A package whose `__init__` hasn't run yet."""

    def __getattr__(self, name: str) -> Any:
        self.__class__ = types.ModuleType  # type: ignore[assignment]
        return getattr(importlib.reload(self), name)
