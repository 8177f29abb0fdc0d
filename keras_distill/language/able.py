"""Whether a model, or a file, can write sequences as it is asked to."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_distill import _keras, taps
from keras_distill.language.given import fitted
from keras_distill.language.search import check_end
from keras_distill.outputs import Output
from keras_distill.teachers import LiteRT


def check_model(
    model: keras.Model, inputs: Any, length: int, end: int, target: str | None, start: int | None
) -> None:
    """Refuses a model that can't write so long sequences. It is run on the first sample.

    Args:
        model: The model.
        inputs: Prompts, or the other inputs by name, arrays.
        length: Tokens of a sequence.
        end: The token that ends it.
        target: Name of the decoder's input, or `None`.
        start: The token with which that begins, or `None`.

    Raises:
        ValueError: If it can't. Says why.
    """
    for layer in _keras.layers_of(model):
        if getattr(layer, "stateful", False):
            raise ValueError(
                f"Layer {layer.name!r} ({type(layer).__name__}) is stateful: it would go on from "
                "what was written before. Build the model with `stateful=False`, and give it the "
                "same weights."
            )
    first = keras.tree.map_structure(lambda x: x[:1], inputs)
    tokens = np.full((1, length), start or 0, "int32")
    if target is None:
        prompt = first[:, :length]
        tokens[:, : prompt.shape[1]] = prompt

    def run(size: int) -> Any:
        x = tokens[:, :size] if target is None else {**first, target: tokens[:, :size]}
        return taps.run(model, (), keras.tree.map_structure(ops.convert_to_tensor, x), "model")[0]

    failure = None
    with _missing_rows(model) as missing:
        try:
            outputs = run(length)
        except Exception as error:
            failure = error
    if missing:
        table = missing[0]
        raise ValueError(
            f"Model {model.name!r} has {table.input_dim} positions, the rows of its `Embedding` "
            f"{table.name!r}. Received: length={length}. Give a `length` of at most "
            f"{table.input_dim}."
        )
    if failure is not None:
        try:
            run(1)
        except Exception:  # The length has nothing to do with it.
            if isinstance(failure, (TypeError, ValueError)):
                raise failure from None
            raise ValueError(
                f"Model {model.name!r} can't read the first sample of `inputs`. It says: {failure}"
            ) from None
        raise ValueError(
            f"Model {model.name!r} can't read sequences of so many tokens. Received: "
            f"length={length}. Give a `length` that it can. It says: {failure}"
        )
    if keras.tree.is_nested(outputs):
        found = sorted(outputs) if isinstance(outputs, dict) else f"{len(outputs)} outputs"
        raise ValueError(
            f"Model {model.name!r} must have one output: the logits after each token. Received: "
            f"{found}. Give `keras.Model(model.input, logits)` with that of its outputs."
        )
    _check_shape(f"model {model.name!r}", Output.of(outputs).shape, length)
    check_end(end, Output.of(outputs).shape[-1])


def _check_shape(whose: str, shape: tuple, length: int) -> None:
    """Refuses an output that isn't the logits after each token."""
    if len(shape) != 3 or shape[1] not in (length, None):
        raise ValueError(
            f"The output of {whose} must be the logits after each token, shape (samples, tokens, "
            f"vocabulary). Received: shape {shape} for {length} tokens"
        )


@contextlib.contextmanager
def _missing_rows(model: keras.Model) -> Iterator[list]:
    """Collects the `Embedding`s that are asked for rows that they don't have."""
    found: list = []

    def watching(table: Any) -> Callable:
        def call(original: Any, ids: Any, *args: Any, **kwargs: Any) -> Any:
            # A table that gives the logits, too, is then given floats.
            is_ids = keras.backend.is_int_dtype(ids.dtype)
            if is_ids and np.max(ops.convert_to_numpy(ids), initial=0) >= table.input_dim:
                found.append(table)
            return original(ids, *args, **kwargs)

        return call

    with contextlib.ExitStack() as stack:
        for layer in _keras.layers_of(model):
            if isinstance(layer, keras.layers.Embedding):
                stack.enter_context(taps.calling(layer, watching(layer)))
        yield found


def check_file(file: LiteRT, inputs: Any, length: int, end: int, target: str | None) -> None:
    """Refuses a file that `convert` made of other inputs or for another length.

    Args:
        file: The file.
        inputs: As in `check_model`.
        length: As in `check_model`.
        end: As in `check_model`.
        target: As in `check_model`.

    Raises:
        ValueError: If it was. Says how.
    """
    ports = {port.name: port for port in file.ports}
    if target is None and len(ports) > 1:
        raise ValueError(
            f"The file takes the inputs {sorted(ports)}. Give the name of the decoder's as "
            "`target`, and the others as a dict. Received: prompts"
        )
    given = {next(iter(ports)): None} if target is None else {**inputs, target: None}
    if not set(ports) <= set(given):
        raise ValueError(f"The file takes the inputs {sorted(ports)}. Received: {sorted(given)}")
    for name, port in ports.items():
        x = given[name]
        if x is not None:
            fitted(x, port, len(x))
        elif port.shape[1:] not in ((length,), (None,)):
            raise ValueError(
                f"The file was converted for sequences of {port.shape[1]} tokens in {name!r}. "
                f"Received: length={length}. Give that `length`, or a file of `export`, which "
                "writes shorter sequences, too."
            )
    if len(file.results) > 1:
        raise ValueError(
            "The file must have one output: the logits after each token. Received: "
            f"{[port.name for port in file.results]}"
        )
    _check_shape("the file", file.results[0].shape, length)
    check_end(end, file.results[0].shape[-1])
