"""Samples for calibration and verification, from whatever form a user's data have."""

import numpy as np


def read(data, shapes, count=None, *, argument="data"):
    """Reads samples from data.

    Args:
        data: An array, a list or a dict of arrays (several inputs), a `tf.data.Dataset`, an
            iterable, or a function that returns one. As in `fit`, elements of datasets and
            iterables may be `(x, y)` or `(x, y, sample_weight)`; they may be batches or samples.
        shapes: Shape of each of the model's inputs without the batch axis, by name, in order.
            `None` stands for any size.
        count: How many samples at most. `None` reads all.
        argument: Name of the argument, for errors.

    Returns:
        Arrays by input name, each of shape `(samples, ...)`, and the labels or `None`.

    Raises:
        ValueError: No samples, or arrays of the wrong shape.
        TypeError: Data of a form that isn't known.
    """
    if callable(data) and not _is_array(data):
        data = data()
    if _holds_arrays(data, shapes):
        inputs, labels = _by_name(data, shapes, argument), None
    elif isinstance(data, (str, bytes, dict)) or not hasattr(data, "__iter__"):
        raise TypeError(
            f"`{argument}` must be arrays, a `tf.data.Dataset` or an iterable of samples. "
            f"Received: {argument}={data!r}"
        )
    else:
        inputs, labels = _collect(data, shapes, count, argument)
    _check(inputs, shapes, argument)
    inputs = {name: array[:count] for name, array in inputs.items()}
    return inputs, None if labels is None else labels[:count]


def _is_array(x):
    return hasattr(x, "shape") and hasattr(x, "dtype")


def _holds_arrays(data, shapes):
    """Whether `data` are whole arrays, one per input, and not an iterable of elements."""
    if isinstance(data, dict):
        return all(map(_is_array, data.values()))
    if isinstance(data, (list, tuple)):
        return len(shapes) > 1 and len(data) == len(shapes) and all(map(_is_array, data))
    return _is_array(data)


def _by_name(x, shapes, argument):
    """`x` of one element or of all, as arrays by input name."""
    if isinstance(x, dict):
        missing = [name for name in shapes if name not in x]
        if missing and len(shapes) == len(x) == 1:
            return {next(iter(shapes)): np.asarray(next(iter(x.values())))}
        if missing:
            raise ValueError(
                f"`{argument}` lacks inputs {missing}. The model takes {list(shapes)}; "
                f"received {list(x)}."
            )
        return {name: np.asarray(x[name]) for name in shapes}
    parts = list(x) if isinstance(x, (list, tuple)) else [x]
    if len(parts) != len(shapes):
        raise ValueError(
            f"`{argument}` must give {len(shapes)} inputs ({list(shapes)}). Received: {len(parts)}"
        )
    return {name: np.asarray(part) for name, part in zip(shapes, parts, strict=True)}


def _collect(data, shapes, count, argument):
    """Reads elements until there are `count` samples."""
    batches, labels, total = [], [], 0
    for element in data:
        x, *rest = element if isinstance(element, tuple) else (element,)
        batch = _by_name(x, shapes, argument)
        first = next(iter(shapes))
        single = batch[first].ndim == len(shapes[first])
        if single:
            batch = {name: array[None] for name, array in batch.items()}
        batches.append(batch)
        if rest:
            y = np.asarray(rest[0])
            labels.append(y[None] if single else y)
        total += len(batch[first])
        if count is not None and total >= count:
            break
    if not batches:
        raise ValueError(f"`{argument}` has no samples.")
    inputs = {name: np.concatenate([b[name] for b in batches]) for name in shapes}
    return inputs, np.concatenate(labels) if labels else None


def _check(inputs, shapes, argument):
    for name, array in inputs.items():
        wanted = shapes[name]
        if array.ndim != len(wanted) + 1 or any(
            size not in (None, got) for size, got in zip(wanted, array.shape[1:], strict=True)
        ):
            raise ValueError(
                f"`{argument}` for input {name!r} must have shape (samples, "
                f"{', '.join(map(str, wanted))}). Received: shape {array.shape}"
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"`{argument}` for input {name!r} holds NaN or infinity.")
    lengths = {name: len(array) for name, array in inputs.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"`{argument}` has arrays of unlike lengths: {lengths}.")
    if 0 in lengths.values():
        raise ValueError(f"`{argument}` has no samples.")
