"""Whether a model knows the tokens that it is given: those that it doesn't end in a backend."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_distill import _keras, taps

_FILES_REFUSE = ("gather index out of bounds", "indices_has_only_positive_elements")
_WAY_OUT = (
    "Split texts by the tokenizer that the model was trained with, and give all words that it "
    "doesn't know the number that it has for these."
)


def check_tokens(
    model: keras.Model, inputs: Any, target: str | None = None, start: int | None = None
) -> None:
    """Refuses tokens for which an `Embedding` of a model has no row.

    Args:
        model: The model.
        inputs: Its inputs, arrays of one batch or of all samples; with `target`, those beside it.
        target: Name of the decoder's input, or `None`.
        start: The token with which that begins.

    Raises:
        ValueError: If there is one. Names the input.
    """
    arrays = keras.tree.map_structure(np.asarray, inputs)
    if target is not None:
        arrays = {**arrays, target: np.array([[start]])}
    tables = [x for x in _keras.layers_of(model) if isinstance(x, keras.layers.Embedding)]
    least = min((table.input_dim for table in tables), default=np.inf)
    for place, x in enumerate(leaves := keras.tree.flatten(arrays)):
        if x.dtype.kind not in "iuf" or not x.size or (x.min() >= 0 and x.max() < least):
            continue
        if x.dtype.kind == "f" and (x % 1 != 0).any():  # No tokens.
            continue
        known = _known(model, arrays, place, tables)
        if known < np.inf and (x.min() < 0 or x.max() >= known):
            names = [path for path, _ in keras.tree.flatten_with_path(arrays)]
            name = "/".join(map(str, names[place]))
            if target is not None and leaves[place] is arrays[target]:
                name = "start"
            wrong = x.min() if x.min() < 0 else x.max()
            raise ValueError(
                f"Model {model.name!r} knows the tokens from 0 to {known - 1}, the rows of its "
                f"`Embedding`. Received: {wrong} in `{name or 'inputs'}`. {_WAY_OUT}"
            )


def _known(model: keras.Model, arrays: Any, place: int, tables: list) -> float:
    """How many tokens a model knows of the input at a place: infinitely many if none looks it up.

    It is run on zeros, and on ones in that place: an `Embedding` that is given ones reads them.
    """
    first = [x[:1] for x in keras.tree.flatten(arrays)]
    probes = [x if x.dtype.kind == "f" else np.zeros_like(x, "int32") for x in first]
    probes[place] = ones = np.ones_like(probes[place])
    found = [np.inf]

    def looking(table: Any) -> Callable:
        def call(original: Any, ids: Any, *args: Any, **kwargs: Any) -> Any:
            if np.array_equal(ids, ones):
                found.append(table.input_dim)
            return original(ids, *args, **kwargs)

        return call

    x = keras.tree.pack_sequence_as(arrays, [ops.convert_to_tensor(probe) for probe in probes])
    with contextlib.ExitStack() as stack:
        for table in tables:
            stack.enter_context(taps.calling(table, looking(table)))
        taps.run(model, (), x, "model")
    return min(found)


@contextlib.contextmanager
def named_tokens(inputs: Any, start: int | None = None) -> Iterator[None]:
    """Raises an error that says what is wrong when a file has no row for a token.

    Args:
        inputs: What the file is given, for the message.
        start: The token with which the decoder's input begins, or `None`.
    """
    try:
        yield
    except Exception as error:
        if not any(text in str(error) for text in _FILES_REFUSE):
            raise
        leaves = keras.tree.flatten_with_path(keras.tree.map_structure(np.asarray, inputs))
        given = ", ".join(
            f"`{'/'.join(map(str, path)) or 'inputs'}` with tokens from {x.min()} to {x.max()}"
            for path, x in leaves
        )
        given += f", start={start}" if start is not None else ""
        raise ValueError(
            f"A token isn't in the vocabulary of the file. Received: {given}. {_WAY_OUT}"
        ) from None
