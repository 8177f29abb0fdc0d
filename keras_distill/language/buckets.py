"""Batches of sequences of about one length."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_distill.checks import whole_number
from keras_distill.teachers import Answered, Keyed
from keras_distill.teachers.batches import x_of


def bucketed(
    dataset: tf.data.Dataset,
    lengths: Sequence[int],
    batch_size: int,
    tokens: str | Sequence[str] | None = None,
) -> tf.data.Dataset:
    """Batches of sequences of about one length, cut to the length of their bucket.

    Of each example, labels, weights and the answers that `teachers.Stored.attach` brought are cut
    alike if they are as long as its tokens; of its inputs, the tokens alone. So nothing can slip
    against the tokens, and neither model computes padding that a batch doesn't need.

    Args:
        dataset: Single examples, padded with 0 on the right to one length: `x`, `(x, y)` or
            `(x, y, sample_weight)`, or what `attach` gave, shuffled or not.
        lengths: Lengths to cut to, ascending. Longer sequences keep the length that they have.
        batch_size: Number of examples in a batch. Buckets that aren't full at the end give smaller
            ones.
        tokens: Name of the input that holds the tokens, of several; or names, if there are several
            sequences of one length, of which the longest decides. A mask of the tokens is named,
            too. Defaults to `None`: the only one.

    Returns:
        `tf.data.Dataset` of batches.

    Raises:
        ValueError: If lengths don't ascend, an input isn't found, or sequences have no axis of one
            known length.

    Example:

    >>> train = stored.attach(train).shuffle(10_000)
    >>> train = keras_distill.language.bucketed(train, [16, 32], batch_size=64)
    """
    whole_number("batch_size", batch_size, 1)
    lengths = [whole_number("lengths", length, 1) for length in lengths]
    if not lengths or lengths != sorted(set(lengths)):
        raise ValueError(f"`lengths` must ascend. Received: lengths={lengths}")
    names = [tokens] if tokens is None or isinstance(tokens, str) else list(tokens)
    full = _full_length([_tokens(dataset.element_spec, name) for name in names])
    lengths = [*(length for length in lengths if length < full), full]
    # A tuple of one stays a tuple: Keras would take `Answered` for inputs, labels and weights.
    is_tuple = type(dataset.element_spec) is tuple
    bounds = tf.constant(lengths, "int64")

    def bucket(*element):
        length = 0
        for name in names:
            is_token = tf.not_equal(_tokens(element, name), 0)
            # Up to the last token, in case there is a 0 among them.
            length = tf.maximum(length, tf.reduce_max(tf.where(is_token, tf.range(1, full + 1), 0)))
        return tf.searchsorted(bounds, [tf.cast(length, "int64")], out_type="int64")[0]

    def batches(number, examples):
        length = bounds[number]

        def cut(leaf):
            return leaf[:length] if leaf.shape.rank and leaf.shape[0] == full else leaf

        def of_example(*element):
            whole = _inputs(element)
            element = keras.tree.map_structure(cut, element)
            if isinstance(whole, dict):
                kept = {name: x for name, x in whole.items() if tokens and name not in names}
                _inputs(element).update(kept)
            return element if is_tuple else element[0]

        return examples.map(of_example).batch(batch_size)

    return dataset.group_by_window(bucket, batches, window_size=batch_size)


def _inputs(element: Any) -> Any:
    """What the student reads of an example."""
    x = x_of(element)
    return x.inputs if isinstance(x, (Answered, Keyed)) else x


def _tokens(element: Any, name: str | None) -> Any:
    """The tokens of an example."""
    x = _inputs(element)
    if name is not None:
        if not isinstance(x, dict) or name not in x:
            raise ValueError(
                "`tokens` names inputs of a dict. Received: "
                f"tokens={name!r}, inputs {list(x) if isinstance(x, dict) else x}"
            )
        return x[name]
    leaves = keras.tree.flatten(x)
    if len(leaves) != 1:
        raise ValueError(
            "Name the input that holds the tokens: `tokens=...`. Received several inputs: "
            f"{list(x) if isinstance(x, dict) else len(leaves)}"
        )
    return leaves[0]


def _full_length(sequences: list) -> int:
    """The one length to which sequences are padded."""
    shapes = [x.shape for x in sequences]
    lengths = {shape[0] if shape.rank else None for shape in shapes}
    if len(lengths) != 1 or None in lengths:
        raise ValueError(
            "Sequences must be padded to one length before they are put into buckets. Received "
            f"tokens of shape {', '.join(map(str, shapes))}"
        )
    return int(shapes[0][0])
