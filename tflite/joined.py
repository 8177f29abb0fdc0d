"""Concatenations that join what has different ranges, in integers of one scale."""

import contextlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras_distill.tflite.inspect import Inspection
from keras_distill.tflite.student_function import StudentFunction

from keras_distill import _keras, taps

#: So many times apart, the smaller part has a sixteenth of the 256 steps, or fewer.
APART = 16
#: On how many samples ranges are taken.
_SAMPLES = 32


def ranges_apart(
    student: StudentFunction,
    found: Inspection,
    inputs: Mapping[str, np.ndarray],
    left: Collection[str] = (),
) -> list[str]:
    """Which concatenations join parts whose ranges are more than `APART` times apart.

    All that an 8-bit concatenation joins has one scale: beside boxes in pixels, scores from 0 to 1
    are rounded to 0.

    Args:
        student: The student.
        found: What is in its file.
        inputs: Samples by input name.
        left: Names of the layers that were asked to stay float.

    Returns:
        A sentence for each, which names the layers and says what to do.
    """
    if not any(
        op.name == "CONCATENATION" and op.outputs[0].dtype in ("INT8", "UINT8")
        for op in found.operators
    ):
        return []
    joins = {id(x): x for x in _concatenations(student.model, left)}
    with _widths(joins) as found_widths:
        few = {name: keras.ops.convert_to_tensor(x[:_SAMPLES]) for name, x in inputs.items()}
        student(few, check=False)
    notes = []
    for key, widths in found_widths.items():
        filled = np.where(widths > 0, widths, np.inf)
        ratio = widths.max() / filled.min()
        if APART < ratio < np.inf:
            small, large = int(filled.argmin()), int(widths.argmax())
            names = _parts(joins[key], len(widths))
            notes.append(
                f"{joins[key].name!r} joins {names[large]} (up to {widths[large]:.3g}) and "
                f"{names[small]} (up to {widths[small]:.3g}) in one scale: the values of the "
                f"latter are rounded to steps of about {widths[large] / 128:.2g}. Give them as "
                "separate outputs, or scale them alike before"
            )
    return notes


def _concatenations(model: Any, left: Collection[str]) -> list[Any]:
    """The concatenating layers and operations of a model, inner models included.

    Without those that are `left` float, or are inside of what is.
    """
    found = []
    for inner in taps.sublayers(model).values():
        if inner.name in left:
            continue
        if type(inner).__name__.removeprefix("Quantized") == "Concatenate":
            found.append(inner)
        elif isinstance(inner, keras.layers.Layer):
            found += _concatenations(inner, left)
    return found


@contextlib.contextmanager
def _widths(joins: Mapping[int, Any]) -> Iterator[dict[int, np.ndarray]]:
    """Collects how far the values of each part reach from 0, by the `id` of what joins them."""
    found: dict[int, np.ndarray] = {}

    def recording(key: int) -> Any:
        def call(original: Any, *arguments: Any, **more: Any) -> Any:
            parts = arguments[0] if arguments else next(iter(more.values()))
            if tf.executing_eagerly():  # In a graph inside of the model there are no values.
                widths = [float(np.abs(np.asarray(x)).max(initial=0)) for x in parts]
                # One that runs again has the larger values of both runs.
                found[key] = np.maximum(found.get(key, 0), widths)
            return original(*arguments, **more)

        return call

    with contextlib.ExitStack() as stack:
        for key, join in joins.items():
            stack.enter_context(taps.calling(join, recording(key)))
        yield found


def _parts(join: Any, count: int) -> list[str]:
    """What a concatenation joins, by the names of the layers it comes from."""
    try:
        given = keras.tree.flatten(join.input)
        names = [repr(_keras.producer_of(x).name) for x in given]
    except (AttributeError, ValueError):
        names = []
    return names if len(names) == count else [f"part {i}" for i in range(count)]
