"""Batches of sequences of about one length."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_distill.checks import whole_number
from keras_distill.teachers import Answered, Keyed
from keras_distill.teachers.batches import x_of
from keras_distill.teachers.coding import REST


def bucketed(
    dataset: tf.data.Dataset,
    lengths: Sequence[int],
    batch_size: int,
    tokens: str | Sequence[str] | None = None,
) -> tf.data.Dataset:
    """Batches of sequences of about one length, cut to the length of their bucket.

    Of an example's inputs the tokens alone are cut. Labels, weights and the answers that
    `teachers.Stored.attach` brought are cut alike if they have an entry for each token, so that
    nothing can slip against the tokens, and neither model computes padding that a batch doesn't
    need. If their first axis is as long as the tokens, that is true of

    - weights, and labels that have such weights;
    - labels and answers that have another axis, such as that of classes;
    - labels that are integers or truth values: each is the class of its token.

    Floats of one axis, such as one-hot labels, or the answer of a classifier that has as many
    classes as there are tokens, are those of the whole example, and stay as they are. A float
    label for each token takes an axis of 1, `(length, 1)`.

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
        ValueError: If lengths don't ascend, an input isn't found, or tokens haven't the shape
            `(length,)` of one known length.
        tf.errors.InvalidArgumentError: In training, if integer labels without weights are above 0
            where they would be cut off.

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
            is_token = tf.cast(_tokens(element, name), "bool")
            # Up to the last token, in case there is a 0 among them.
            length = tf.maximum(length, tf.reduce_max(tf.where(is_token, tf.range(1, full + 1), 0)))
        return tf.searchsorted(bounds, [tf.cast(length, "int64")], out_type="int64")[0]

    def batches(number, examples):
        def of_example(x, *others):
            cut = _cut_example(_Cut(full, bounds[number]), x, others, names)
            return cut if is_tuple else cut[0]

        return examples.map(of_example).batch(batch_size)

    return dataset.group_by_window(bucket, batches, window_size=batch_size)


@dataclasses.dataclass(frozen=True)
class _Cut:
    """Cuts what has an entry for each of `full` tokens to a length, an integer tensor."""

    full: int
    length: Any

    def fits(self, x: Any, least_axes: int = 1) -> bool:
        """Whether the first of at least so many axes is as long as the tokens."""
        rank = x.shape.rank
        return bool(rank) and rank >= least_axes and x.shape[0] == self.full

    def inputs(self, x: Any, names: list) -> Any:
        if names == [None]:
            return keras.tree.map_structure(lambda tokens: tokens[: self.length], x)
        return {name: y[: self.length] if name in names else y for name, y in x.items()}

    def answer(self, path: tuple, x: Any) -> Any:
        # All fields but one kind end in the axis of classes.
        axes = 1 if str(path[-1]).endswith(REST) else 2
        return x[: self.length] if self.fits(x, axes) else x

    def weight(self, x: Any) -> Any:
        return x[: self.length] if self.fits(x) else x

    def label(self, x: Any, weight: Any) -> Any:
        if self.fits(x, 2) or (self.fits(x) and weight is not None and self.fits(weight)):
            return x[: self.length]
        if not self.fits(x) or not (x.dtype.is_integer or x.dtype.is_bool):
            return x
        is_padding = tf.reduce_all(tf.cast(x[self.length :], "int64") <= 0)
        says = (
            f"Integer labels of shape {x.shape} are cut as the tokens are, but some are above 0 "
            "after the last token. Are they padding? Make them 0 or negative, or give weights. Of "
            "another input? Name it in `tokens`, too. Of the whole example? Make them floats."
        )
        tf.debugging.Assert(is_padding, [says, x])
        return x[: self.length]


def _cut_example(cut: _Cut, x: Any, others: tuple, names: list) -> tuple:
    """An example, `x` and perhaps labels and weights, cut to the length of its bucket."""
    inputs = cut.inputs(_inputs((x,)), names)
    x = x._replace(inputs=inputs) if isinstance(x, (Answered, Keyed)) else inputs
    if isinstance(x, Answered):
        paths, answers = zip(*keras.tree.flatten_with_path(x.answers), strict=True)
        cuts = list(map(cut.answer, paths, answers))
        x = x._replace(answers=keras.tree.pack_sequence_as(x.answers, cuts))
    if not others:
        return (x,)
    labels, *weights = others
    leaves, own = keras.tree.flatten(labels), keras.tree.flatten(weights)
    own = own if len(own) == len(leaves) else [*own, None][:1] * len(leaves)
    labels = keras.tree.pack_sequence_as(labels, list(map(cut.label, leaves, own)))
    return (x, labels, *keras.tree.map_structure(cut.weight, weights))


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
    lengths = {shape[0] if shape.rank == 1 else None for shape in shapes}
    if len(lengths) != 1 or None in lengths:
        raise ValueError(
            "Tokens must be of shape (length,), and padded to one length before they are put into "
            f"buckets. Received tokens of shape {', '.join(map(str, shapes))}"
        )
    return int(shapes[0][0])
