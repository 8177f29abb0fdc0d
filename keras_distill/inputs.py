"""Batches that hold more than one model reads: each model gets its own entries, by name."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_distill import _keras
from keras_distill._types import Tensors


def reads_of(model: Any) -> Any:
    """What a model reads, as a structure of `keras.KerasTensor`s, or `None` if it doesn't tell.

    Functional and built Sequential models tell.
    """
    if isinstance(model, keras.Sequential):
        return model.inputs[0] if model.built and model.inputs else None
    return model.input if isinstance(model, keras.Model) and hasattr(model, "operations") else None


def check_known(name: str, model: Any) -> None:
    """Raises unless an argument is a model that tells what it reads and what it gives.

    Raises:
        TypeError: If it isn't a Keras model.
        ValueError: If it doesn't tell.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"`{name}` must be a Keras model. Received: {name}={model!r}")
    if reads_of(model) is None:
        raise ValueError(
            f"`{name}` must be functional, or sequential with a `keras.Input`: its inputs and "
            f"outputs must be known. Received: {name}={model!r}"
        )


def known_inputs(model: Any) -> tuple[Any, bool]:
    """The inputs of a built model, as far as it knows them, and whether they are complete."""
    if isinstance(model, keras.Sequential):
        return model.inputs[0], True
    called_with = getattr(model, "input", None)
    if called_with is not None:
        return called_with, hasattr(model, "operations") and not isinstance(called_with, dict)
    shape = (model.get_build_config() or {}).get("input_shape")
    if shape is None or not all(size is None or isinstance(size, int) for size in shape):
        return None, False
    return keras.KerasTensor(shape), False


def keys_of(structure: Any) -> list[str] | None:
    """The keys of a flat dict of inputs, in the order in which Keras flattens it; else `None`."""
    if not isinstance(structure, Mapping) or any(map(keras.tree.is_nested, structure.values())):
        return None
    return sorted(structure)


def entries_for(model: Any, x: Tensors, role: str) -> Tensors:
    """The entries of a dict that a model reads; anything else as it is.

    Keras gives a model whose inputs are a dict the first entries of a larger one, whatever their
    names. Models that don't tell what they read get the whole dict.

    Args:
        model: A model of Keras or `tf_keras`.
        x: Inputs of a batch.
        role: "student" or "teacher", for messages.

    Raises:
        ValueError: If the dict lacks an entry that the model reads.
    """
    reads = reads_of(model) if isinstance(x, dict) else None
    return x if reads is None else _pick(reads, x, role)


def check_shapes(reads: Any, x: Tensors) -> None:
    """Raises where arrays don't fit what a model reads, in words shorter than a backend's.

    Args:
        reads: A structure of `keras.KerasTensor`s, or `None` if it isn't known.
        x: Arrays. Those of another number aren't looked at.

    Raises:
        ValueError: If one has another shape. Names both.
    """
    wanted, given = keras.tree.flatten(reads), keras.tree.flatten(x)
    if reads is None or len(wanted) != len(given):
        return
    for spec, array in zip(wanted, given, strict=True):
        if array is not None and not fits(spec.shape, np.shape(array)):
            shape = ", ".join(map(str, ["samples", *spec.shape[1:]]))
            raise ValueError(
                f"The input {spec.name!r} must have the shape ({shape}). "
                f"Received: shape {np.shape(array)}"
            )


def fits(wanted: Sequence[int | None], given: Sequence[int | None]) -> bool:
    """Whether a model of Keras takes a tensor where it wants another shape, batch axis first.

    It adds a last axis of 1, or drops it. Sizes of `None` aren't known.
    """
    if len(wanted) == len(given) + 1:
        given = [*given, 1]
    elif len(given) == len(wanted) + 1:
        wanted = [*wanted, 1]
    return len(wanted) == len(given) and all(
        a == b or None in (a, b) for a, b in zip(wanted[1:], given[1:], strict=True)
    )


def _pick(reads, x, role):
    if not isinstance(x, dict):
        return x
    if isinstance(reads, dict):
        return {
            name: _pick(part, _entry(x, name, part, role), role) for name, part in reads.items()
        }
    if isinstance(reads, (list, tuple)):
        return [_pick(part, x, role) for part in reads]
    return _entry(x, reads.name, reads, role)


def _entry(x, name, reads, role):
    if name in x:
        return x[name]
    if isinstance(reads, keras.KerasTensor) and _keras.is_optional(reads):
        return None
    raise ValueError(
        f"The {role} reads the input {name!r}, but the batch holds only "
        f"{', '.join(map(repr, sorted(x)))}. Give each input of a model the name of its entry, "
        "such as `keras.Input(shape, name=...)`."
    )
