"""Held-out data, read once into arrays so that every candidate sees the same samples."""

import keras
import numpy as np
import tensorflow as tf


def read(data):
    """Reads inputs and labels.

    Args:
        data: `(x, y)`, or batches of `(x, y)`: a `tf.data.Dataset`, a `keras.utils.PyDataset` or
            another iterable that ends. `x` is an array, or a list or dict of arrays.

    Returns:
        `(x, y)` as arrays, `x` in its structure.

    Raises:
        ValueError: If there are no samples or no labels, `x` and `y` differ in length, or the data
            doesn't end.
    """
    if not isinstance(data, (tuple, list)) or _is_batches(data):
        data = _joined(data)
    if len(data) != 2:
        raise ValueError(
            f"`data` must be inputs and labels, `(x, y)`. Received {len(data)} parts"
            + (": evaluation takes no sample weights." if len(data) == 3 else ".")
        )
    x, y = data[0], np.asarray(data[1])
    x = keras.tree.map_structure(_array, x)
    lengths = {len(leaf) if leaf.ndim else 0 for leaf in [*keras.tree.flatten(x), y]}
    if len(lengths) != 1:
        raise ValueError(
            f"The inputs and labels in `data` must have the same number of samples. "
            f"Received: {sorted(lengths)}"
        )
    if lengths == {0}:
        raise ValueError("`data` holds no samples.")
    return x, y


def count(x) -> int:
    """Number of samples in inputs of any structure."""
    return len(keras.tree.flatten(x)[0])


def take(x, index):
    """The samples at `index` (a slice or an array of indices)."""
    return keras.tree.map_structure(lambda leaf: leaf[index], x)


def _array(x):
    """An array; of `str` for text, which tensors give as bytes and Keras takes as text alone."""
    x = np.asarray(x)
    if x.dtype.kind not in "OSU":
        return x
    texts = [t.decode() if isinstance(t, bytes) else str(t) for t in x.ravel()]
    return np.array(texts, object).reshape(x.shape)


def _is_batches(data):
    """Whether a list holds batches `(x, y)`, and isn't a pair itself."""
    return isinstance(data, list) and all(isinstance(batch, tuple) for batch in data)


def _joined(batches):
    if (
        isinstance(batches, tf.data.Dataset)
        and batches.cardinality() == tf.data.INFINITE_CARDINALITY
    ):
        raise ValueError("`data` repeats without end: evaluate on a dataset without `repeat()`.")
    if isinstance(batches, keras.utils.PyDataset):
        if batches.num_batches is None:
            raise ValueError("`data` doesn't say how many batches it has.")
        batches = (batches[i] for i in range(batches.num_batches))
    batches = [b if isinstance(b, tuple) else (b,) for b in batches]
    if not batches:
        raise ValueError("`data` holds no samples.")
    if any(len(batch) != 2 for batch in batches):
        return batches[0]
    if np.ndim(batches[0][1]) == 0:
        raise ValueError("`data` gives samples one by one: batch it, `data.batch(256)`.")
    return keras.tree.map_structure(
        lambda *parts: np.concatenate([np.asarray(p) for p in parts]), *batches
    )
