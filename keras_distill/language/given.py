"""What models that write are given: prompts, or the inputs of an encoder, as arrays."""

from typing import Any

import numpy as np
import tensorflow as tf

#: The largest token: what is read and written is int32.
_LARGEST = 2**31 - 1


def arrays_of(inputs: Any, target: str | None = None) -> Any:
    """Inputs as an array of prompts, or, with `target`, as a dict of arrays.

    Args:
        inputs: As in `keras_distill.language.generate`.
        target: Likewise.

    Raises:
        ValueError: If they are something else, or there isn't a row of each for each sample.
    """
    if target is None:
        arrays = {"inputs": array_of("inputs", inputs)}
    else:
        check_named(inputs, target)
        arrays = {name: array_of(f"inputs[{name!r}]", x) for name, x in inputs.items()}
    counts = {name: len(x) for name, x in arrays.items()}
    if not all(counts.values()):
        raise ValueError(
            "There must be at least one sample in `inputs`. Received: none"
            + (f" in {[name for name, count in counts.items() if not count]}" if target else "")
        )
    if len(set(counts.values())) > 1:
        raise ValueError(f"`inputs` must have as many samples of each name. Received: {counts}")
    return arrays["inputs"] if target is None else arrays


def check_named(inputs: Any, target: str) -> None:
    """Refuses what isn't a dict with inputs beside `target`."""
    if not isinstance(inputs, dict):
        raise ValueError(
            "With `target`, give the other inputs as a dict by their names. Received: "
            f"target={target!r}, inputs of type {type(inputs).__name__}"
        )
    if not set(inputs) - {target}:
        raise ValueError(
            "With `target`, there must be other inputs, which an encoder reads. Received: "
            f"target={target!r}, inputs={sorted(inputs)}"
        )


def array_of(name: str, x: Any) -> np.ndarray:
    """One input as an array.

    Args:
        name: What it is called in messages.
        x: The input.

    Raises:
        ValueError: If it isn't an array with an entry for each sample. Says why.
    """
    if isinstance(x, tf.data.Dataset):
        raise ValueError(
            f"`{name}` must be an array. Received: a `tf.data.Dataset`. `write_targets` takes one; "
            "for `generate`, collect its batches."
        )
    if isinstance(x, tf.RaggedTensor):
        raise ValueError(
            f"The rows of `{name}` must be of one length, padded with 0 on the right. Received: a "
            "ragged tensor. Give `x.to_tensor()`."
        )
    try:
        array = np.asarray(x)
    except ValueError:  # Lists of several lengths.
        lengths = sorted({len(row) for row in x})
        raise ValueError(
            f"The rows of `{name}` must be of one length, padded with 0 on the right. Received: "
            f"lengths {lengths}. `keras.utils.pad_sequences(x, padding='post')` pads them."
        ) from None
    if not array.ndim:
        raise ValueError(
            f"`{name}` must be an array with an entry for each sample: prompts are integers of "
            f"shape (samples, tokens). Received: {name} of type {type(x).__name__}"
        )
    return array


def fitted(x: np.ndarray, port: Any, count: int) -> np.ndarray:
    """An input in the type that a file takes.

    Args:
        x: The input.
        port: The file's `Port` for it.
        count: How many samples there are.

    Raises:
        ValueError: If the file takes something else.
    """
    wanted = [count, *port.shape[1:]]
    if x.ndim != len(wanted) or any(
        size not in (got, None) for got, size in zip(x.shape, wanted, strict=True)
    ):
        shape = ", ".join(map(str, wanted))
        raise ValueError(
            f"The file takes {port.name!r} of the shape ({shape}). Received: shape {x.shape}"
        )
    is_number, is_integer = x.dtype.kind in "biuf", np.dtype(port.dtype).kind in "iu"
    if not is_number or (is_integer and not port.scale and (x != x.astype(port.dtype)).any()):
        values = f" from {x.min()} to {x.max()}" if is_number else ""
        raise ValueError(
            f"The file takes {port.name!r} of {port.dtype}. Received: {x.dtype}{values}"
        )
    return x.astype("float32" if port.scale else port.dtype)


def check_prompts(prompts: np.ndarray, length: int) -> None:
    """Refuses what isn't prompts with room for a token.

    Args:
        prompts: Integers, or floats that are whole, shape `(samples, tokens)`.
        length: Tokens of the longest sequence.

    Raises:
        ValueError: If they aren't. Says why.
    """
    check_tokens_padded("Prompts", prompts)
    given = (prompts != 0).sum(-1)
    if given.min() < 1 or given.max() >= length:
        raise ValueError(
            "Each prompt must have at least one token, and fewer than `length`. Received: prompts "
            f"of {given.min()} to {given.max()} tokens, length={length}"
        )


def check_tokens_padded(name: str, tokens: np.ndarray) -> None:
    """Refuses what isn't tokens, padded with 0 on the right.

    Args:
        name: What they are called in the message.
        tokens: As in `check_prompts`.

    Raises:
        ValueError: If they aren't.
    """
    is_table = tokens.ndim == 2 and tokens.size
    if not is_table or tokens.dtype.kind not in "iuf" or (tokens % 1 != 0).any():
        raise ValueError(
            f"{name} must be integers of shape (samples, tokens), padded with 0 on the right. "
            f"Received: shape {tokens.shape} of {tokens.dtype}"
        )
    least, largest = tokens.min(), tokens.max()
    if least < 0 or largest > _LARGEST:
        raise ValueError(
            f"Tokens of {name.lower()} must be at least 0, and at most {_LARGEST}. Received: "
            f"{least if least < 0 else largest}"
        )
    if ((tokens != 0).cumprod(-1).sum(-1) != (tokens != 0).sum(-1)).any():
        raise ValueError(f"{name} are padded with 0 on the right: a 0 stands before another token.")
