"""Samples from every form in which users keep their data, read in one place.

`read` and `batches` are for data that goes into a model or a file whose inputs are known.
`labeled` is for held-out inputs and labels. All take a `tf.data.Dataset`, a
`keras.utils.PyDataset`, any other iterable, or a function without arguments that returns one of
these; as in `fit`, an element is `x`, `(x, y)` or `(x, y, sample_weight)`.
"""

import functools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np

#: Shape of each of a model's inputs without the batch axis, by name; `None` stands for any size.
Shapes: TypeAlias = Mapping[str, Sequence[int | None]]
#: One array for each input, by name, each of shape `(samples, ...)`.
Inputs: TypeAlias = dict[str, np.ndarray]


def read(
    data: Any, shapes: Shapes, count: int | None = None, *, argument: str = "data"
) -> tuple[Inputs, Any]:
    """Reads samples for a model whose inputs are known.

    Args:
        data: An array, a list or dict of arrays (several inputs), `(x, y)` of these, or a dataset
            or iterable of batches or single samples. The array of a single input may have any
            name in a dict, because files rename inputs.
        shapes: Shape of each input without the batch axis, by name, in order.
        count: The largest number of samples to read. `None` reads all.
        argument: Name of the argument, for error messages.

    Returns:
        `(inputs, labels)`: arrays by input name, and the labels or `None`.

    Raises:
        TypeError: If the data has none of these forms.
        ValueError: If there are no samples, they don't fit the inputs, or they don't end.
    """
    data = _called(data)
    by_name = functools.partial(_by_name, shapes=shapes, argument=argument, any_name=True)
    _warn_of_pair(data, shapes, argument)
    whole = _whole(data, shapes, by_name, argument)
    parts, total = [], 0
    elements = [whole] if whole else _elements_by_name(data, shapes, by_name, count, argument)
    for inputs, labels in elements:
        parts.append((inputs, labels))
        total += _length(inputs)
        if count is not None and total >= count:
            break
    if not total:
        raise ValueError(f"`{argument}` has no samples.")
    if parts[0][1] is None:
        return take(_concatenated([inputs for inputs, _ in parts]), slice(count)), None
    return take(_concatenated(parts), slice(count))


def batches(
    data: Any, shapes: Shapes, *, batch_size: int, argument: str = "data"
) -> Iterator[Inputs]:
    """Reads batches for a model whose inputs are known, without holding them all in memory.

    Args:
        data: As for `read`, but names in dicts are those of the inputs.
        shapes: As for `read`.
        batch_size: Size of the batches into which whole arrays are divided. Batches of datasets
            and iterables stay as they are.
        argument: Name of the argument, for error messages.

    Yields:
        Arrays by input name.

    Raises:
        TypeError: If the data has none of these forms.
        ValueError: If there are no samples, they don't fit the inputs, or they don't end.
    """
    data = _called(data)
    by_name = functools.partial(_by_name, shapes=shapes, argument=argument, any_name=False)
    _warn_of_pair(data, shapes, argument)
    whole = _whole(data, shapes, by_name, argument)
    total = 0
    if whole:
        inputs, total = whole[0], _length(whole[0])
        for start in range(0, total, batch_size):
            yield take(inputs, slice(start, start + batch_size))
    else:
        for inputs, _ in _elements_by_name(data, shapes, by_name, None, argument):
            total += _length(inputs)
            yield inputs
    if not total:
        raise ValueError(f"`{argument}` has no samples.")


def labeled(data: Any, *, argument: str = "data") -> tuple[Any, np.ndarray]:
    """Reads inputs in their own structure, and labels.

    Args:
        data: `(x, y)`, or a dataset or iterable of batches of `(x, y)`. `x` is an array, or a list
            or dict of arrays.
        argument: Name of the argument, for error messages.

    Returns:
        `(x, y)`: arrays, those of `x` in its structure.

    Raises:
        TypeError: If the data has none of these forms.
        ValueError: If there are no samples or no labels, `x` and `y` differ in length, or the data
            doesn't end.
    """
    if not isinstance(data, (tuple, list)) or _is_list_of_batches(data):
        data = _joined(data, argument)
    if len(data) != 2:
        raise ValueError(
            f"`{argument}` must be inputs and labels, `(x, y)`. Received {len(data)} parts"
            + (": evaluation takes no sample weights." if len(data) == 3 else ".")
        )
    if isinstance(data[1], Mapping):
        raise ValueError(
            f"The labels in `{argument}` must be those of a single output. Received a dict: "
            f"{list(data[1])}. Give models of one output, such as `keras.Model(model.input, "
            "model.output[name])`, and its labels."
        )
    x, y = keras.tree.map_structure(_array, data[0]), np.asarray(data[1])
    _check_lengths([*keras.tree.flatten(x), y], argument)
    if not len(y):
        raise ValueError(f"`{argument}` has no samples.")
    return x, y


def count(x: Any) -> int:
    """Number of samples in inputs of any structure."""
    return len(keras.tree.flatten(x)[0])


def take(x: Any, index: Any) -> Any:
    """The samples at `index` (an index, a slice or an array of indices) of any structure."""
    return keras.tree.map_structure(lambda leaf: leaf[index], x)


def _warn_of_pair(data, shapes, argument):
    """Warns of a list of two arrays that are read as two batches, but look like `[x, y]`."""
    first = next(iter(shapes.values()))
    if not isinstance(data, list) or len(data) != 2 or len(shapes) > 1:
        return
    if not all(_is_array(x) and _fits(np.shape(x), first) for x in data):
        return
    one, other = (np.asarray(x) for x in data)
    differ = _differ(one, other) if len(one) == len(other) else ""
    if differ:
        warnings.warn(
            f"`{argument}` is a list of two arrays of {differ}, which are both read as inputs. "
            "Give inputs and labels as a tuple, `(x, y)`.",
            stacklevel=5,
        )


def _differ(one, other):
    """In words, how two arrays differ that batches of the same data wouldn't; "" if they don't."""
    text = [x.dtype.kind in "OSUT" for x in (one, other)]
    if all(text):
        return ""
    if one.dtype != other.dtype:
        return f"other dtypes ({one.dtype} and {other.dtype})"
    spans = _span(one), _span(other)
    if max(spans) <= 2 * min(spans):
        return ""
    return f"other values (spans of {spans[0]:.3g} and {spans[1]:.3g})"


def _span(x):
    """How far apart the finite numbers of an array are, 0.0 of what holds none."""
    finite = x[np.isfinite(x)] if x.dtype.kind in "biuf" else x[:0]
    return float(finite.max()) - float(finite.min()) if finite.size else 0.0


def _called(data):
    return data() if callable(data) and not _is_array(data) else data


def _whole(
    data: Any, shapes: Shapes, by_name: Callable[[Any], Inputs], argument: str
) -> tuple[Inputs, Any] | None:
    """Inputs and labels of data that isn't an iterable of elements."""
    if _is_whole(data, shapes):
        x, labels = data, None
    elif isinstance(data, tuple) and len(data) in (2, 3) and _is_pair(data, shapes):
        x, labels = data[0], keras.tree.map_structure(np.asarray, data[1])
    else:
        return None
    inputs = by_name(x)
    _check_shapes(inputs, shapes, argument)
    _check_lengths([*inputs.values(), *keras.tree.flatten(labels)], argument)
    return inputs, labels


def _elements_by_name(
    data: Any,
    shapes: Shapes,
    by_name: Callable[[Any], Inputs],
    count: int | None,
    argument: str,
) -> Iterator[tuple[Inputs, Any]]:
    """Inputs and labels of one batch after another; a single sample becomes a batch of one."""
    for x, *rest in _elements(data, argument, endless=count is not None):
        inputs = by_name(x)
        labels = keras.tree.map_structure(np.asarray, rest[0]) if rest else None
        first = next(iter(shapes))
        if inputs[first].ndim == len(shapes[first]):
            inputs = {name: array[None] for name, array in inputs.items()}
            labels = keras.tree.map_structure(lambda y: y[None], labels) if rest else None
        _check_shapes(inputs, shapes, argument)
        _check_lengths(inputs.values(), argument)
        yield inputs, labels


def _elements(data: Any, argument: str, endless: bool = False) -> Iterator[tuple]:
    """The elements of a dataset or iterable, each a tuple `(x,)`, `(x, y)` or `(x, y, weight)`."""
    if isinstance(data, keras.utils.PyDataset):
        if data.num_batches is None:
            raise ValueError(f"`{argument}` doesn't say how many batches it has.")
        batches = data
        data = (batches[i] for i in range(batches.num_batches))
    if isinstance(data, (str, bytes, dict)) or not hasattr(data, "__iter__"):
        raise TypeError(
            f"`{argument}` must be an array, a list or dict of arrays, `(x, y)`, a "
            "`tf.data.Dataset`, a `keras.utils.PyDataset` or an iterable of batches. "
            f"Received: {argument}={data!r}"
        )
    # TensorFlow's number for an endless dataset is -1.
    if not endless and hasattr(data, "cardinality") and int(data.cardinality()) == -1:
        raise ValueError(
            f"`{argument}` repeats without end: remove `repeat()` from the dataset, or give "
            f"`{argument}.take(...)`."
        )
    for element in data:
        yield element if isinstance(element, tuple) else (element,)


def _is_array(x):
    return hasattr(x, "shape") and hasattr(x, "dtype")


def _is_whole(data, shapes):
    """Whether `data` is one array for each input, and not an iterable of elements."""
    if isinstance(data, dict):
        return all(map(_is_array, keras.tree.flatten(data)))
    if isinstance(data, (list, tuple)):
        return len(shapes) > 1 and len(data) == len(shapes) and all(map(_is_array, data))
    return _is_array(data)


def _is_pair(data, shapes):
    """Whether a tuple is `(x, y)` of whole arrays, as in `fit`, and doesn't hold two samples.

    Labels may look like inputs (an autoencoder's do); two batches are told by other sizes.
    """
    first = next(iter(shapes.values()))
    x, y = data[:2]
    if len(shapes) > 1 or not _is_array(x):
        return _is_whole(x, shapes)
    two_batches = _is_array(y) and _fits(np.shape(y), first) and len(x) != len(y)
    return _fits(np.shape(x), first) and not two_batches


def _fits(shape, wanted):
    return len(shape) == len(wanted) + 1 and all(
        size in (None, got) for size, got in zip(wanted, shape[1:], strict=True)
    )


def _is_list_of_batches(data):
    """Whether a list holds batches `(x, y)`, and isn't itself `[x, y]`."""
    return isinstance(data, list) and all(isinstance(batch, tuple) for batch in data)


def _by_name(x: Any, shapes: Shapes, argument: str, any_name: bool) -> Inputs:
    """`x` of one batch, of one sample or of everything, as arrays by input name."""
    if isinstance(x, dict) and set(shapes) <= set(x):
        return {name: np.asarray(x[name]) for name in shapes}
    if isinstance(x, dict) and len(x) == len(shapes) == 1 and any_name:
        x = next(iter(x.values()))
    elif isinstance(x, dict) and not any(keras.tree.is_nested(value) for value in x.values()):
        missing = [name for name in shapes if name not in x]
        raise ValueError(
            f"`{argument}` lacks inputs {missing}. The model takes {list(shapes)}; received "
            f"{list(x)}."
        )
    parts = keras.tree.flatten(x) if isinstance(x, (dict, list, tuple)) else [x]
    if len(parts) != len(shapes):
        raise ValueError(
            f"`{argument}` must have {len(shapes)} inputs ({list(shapes)}). Received: {len(parts)}"
        )
    return {name: np.asarray(part) for name, part in zip(shapes, parts, strict=True)}


def _check_shapes(inputs, shapes, argument):
    for name, array in inputs.items():
        if not _fits(array.shape, shapes[name]):
            raise ValueError(
                f"`{argument}` for input {name!r} must have shape "
                f"({', '.join(map(str, ['samples', *shapes[name]]))}). Received: shape "
                f"{array.shape}"
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"`{argument}` has NaN or infinity in input {name!r}.")


def _check_lengths(arrays, argument):
    lengths = {len(array) if array.ndim else 0 for array in arrays if array is not None}
    if len(lengths) > 1:
        raise ValueError(
            f"The arrays in `{argument}` must have the same number of samples. "
            f"Received: {sorted(lengths)}"
        )


def _length(inputs):
    return len(next(iter(inputs.values())))


def _array(x):
    """An array; of `str` for text, which tensors hold as bytes and Keras takes as text alone."""
    x = np.asarray(x)
    if x.dtype.kind not in "OSU":
        return x
    texts = [t.decode() if isinstance(t, bytes) else str(t) for t in x.ravel()]
    return np.array(texts, object).reshape(x.shape)


def _joined(data, argument):
    """All batches as one, or the first of them if they aren't pairs."""
    batches = list(_elements(data, argument))
    if not batches:
        raise ValueError(f"`{argument}` has no samples.")
    if any(len(batch) != 2 for batch in batches):
        return batches[0]
    if np.ndim(batches[0][1]) == 0:
        raise ValueError(
            f"`{argument}` has single samples where batches are needed: batch it, "
            f"`{argument}.batch(256)`."
        )
    return _concatenated(batches)


def _concatenated(parts):
    def joined(*leaves):
        arrays = [np.asarray(leaf) for leaf in leaves]
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)

    return keras.tree.map_structure(joined, *parts)


def are_decisions(y: np.ndarray) -> bool:
    """Whether labels are all 0 or 1."""
    return bool(((y == 0) | (y == 1)).all())


def is_one_hot(y: np.ndarray) -> bool:
    """Whether each row of labels holds a single 1 among zeros."""
    return are_decisions(y) and bool((y.sum(-1) == 1).all())
