"""Losses over large vocabularies, computed for a number of positions at a time."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_distill import backends
from keras_distill._types import PACKAGE, Tensor
from keras_distill.checks import fraction, whole_number
from keras_distill.hyperparameters import hyperparameters
from keras_distill.losses.base import DistillationLoss, reduced
from keras_distill.losses.numerics import finite_logits
from keras_distill.losses.response import SoftTargets, check_logits
from keras_distill.outputs import Factors, Output


def in_chunks(
    function: Callable, student: Factors, given: list, rank: int, size: int, dtype: Any
) -> Tensor:
    """Values of a function of the student's logits, computed chunk by chunk of positions.

    The backward pass computes the logits of each chunk once more, so that those of a few chunks
    are all that is ever held. Gradients flow to the student's factors, not to `given`.

    Args:
        function: Function of the logits of some positions, shape `(positions, classes)`, and of
            the rows of `given` at these positions. Returns a value for each, of dtype `dtype`,
            shape `(positions,)`.
        student: What the student's logits are computed from.
        given: Other tensors with an entry for each position, shape `(batch, ..., anything)`.
        rank: How many axes all of them have before what belongs to one position.
        size: How many positions a chunk has.
        dtype: Dtype of the values.

    Returns:
        One value per position, shape `(batch, ...)`.
    """
    leading = ops.shape(student.rows[0])[:rank]
    number = len(student.rows)
    given = [_cut(ops.stop_gradient(x), rank, size) for x in given]

    def of_chunk(index):
        beside = [ops.take(x, index, axis=0) for x in given]

        def values(*tensors):
            return function(student.logits(tensors[:number], tensors[number:]), *beside)

        return values

    def run(*tensors):
        rows, shared = tensors[:number], tensors[number:]
        chunks = ops.shape(rows[0])[0]

        def at(index):
            return [*(ops.take(x, index, axis=0) for x in rows), *shared]

        def write(index, values):
            return [_put(values, index, of_chunk(index)(*at(index)))]

        def gradient(*args, upstream=None):  # Backends give it in one way or the other.
            upstream = args[0] if upstream is None else upstream

            def add(index, *sums):
                upwards = ops.take(upstream, index, axis=0)
                parts = backends.pulled_back(of_chunk(index), at(index), upwards)
                return [
                    _put(total, index, part) if place < number else total + ops.cast(part, dtype)
                    for place, (total, part) in enumerate(zip(sums, parts, strict=True))
                ]

            start = [ops.zeros_like(x) for x in rows]
            sums = _each(chunks, add, [*start, *(ops.zeros_like(x, dtype=dtype) for x in shared)])
            return tuple(ops.cast(total, x.dtype) for total, x in zip(sums, tensors, strict=True))

        empty = ops.zeros(ops.shape(rows[0])[:2], dtype=dtype)
        return _each(chunks, write, [empty])[0], gradient

    cut = [_cut(x, rank, size) for x in student.rows]
    values = ops.custom_gradient(run)(*cut, *student.shared)
    count = _product(leading)
    return ops.reshape(ops.reshape(values, (-1,))[:count], leading)


def label_cross_entropy(labels: Tensor, logits: Tensor) -> Tensor:
    """`−log softmax(logits)[label]`.

    Args:
        labels: Classes, integers, shape `(batch, ...)`.
        logits: Float, shape `(batch, ..., classes)`.

    Returns:
        One value per sample and position, shape `(batch, ...)`; 0 where a label names no class
        (-100, say).
    """
    labels = ops.cast(labels, "int32")
    known = ops.logical_and(labels >= 0, labels < logits.shape[-1])
    at = ops.where(known, labels, ops.zeros_like(labels))[..., None]
    values = -ops.take_along_axis(ops.log_softmax(logits), at, axis=-1)[..., 0]
    return ops.where(known, values, ops.zeros_like(values))


def _as_classes(labels, shape):
    """Labels as integers of a shape, one for each position."""
    labels = ops.convert_to_tensor(labels)
    if len(labels.shape) == len(shape) + 1 and labels.shape[-1] == 1:
        labels = ops.squeeze(labels, axis=-1)
    if len(labels.shape) != len(shape):
        raise ValueError(
            "`Chunked` takes labels as class numbers, one for each position: shape "
            f"{tuple(shape)}. Received: labels of shape {tuple(labels.shape)}"
        )
    return labels


@keras.saving.register_keras_serializable(PACKAGE)
class Chunked(DistillationLoss):
    """Another loss on logits, whose memory doesn't grow with batch × time × vocabulary.

    Value and gradient are those of `loss`. Where a model ends in a `Dense` layer without an
    activation, or in a `ReversibleEmbedding`, logits are computed here from the hidden states below
    it, for `positions` positions at a time, and once more in the backward pass. Of stored top-k
    answers, the rest of the vocabulary is filled in for as many. In the compiled step, the models'
    own logits are then not computed at all, unless a metric or the loss of `compile` reads them:
    train on the labels by `label_weight` instead, with `alpha=0`.

    For vocabularies of thousands of tokens. Saves most of the memory that logits take, and costs
    one more product of hidden states and output embedding.

    Args:
        loss: The loss, one that takes logits and compares each position by itself. Its
            hyperparameters stay as they are. Defaults to `SoftTargets(temperature=1.0)`.
        positions: How many positions are computed at a time. Ten times as many may be held, since
            TensorFlow runs them side by side if there are processors to do so.
        label_weight: Weight w of the labels, 0 to 1: the value is
            `(1 − w) · loss + w · cross-entropy`.
        name: Name of the loss, under which `fit` reports it. Defaults to the name of `loss`.
        reduction: As in `keras.losses.Loss`.
        dtype: Dtype or policy of the computation. Defaults to `keras.config.floatx()`.

    Call arguments:
        y_true: Logits of the teacher, float, shape `(batch, ..., classes)`, or `(logits, labels)`
            where labels are needed. No gradient flows to them.
        y_pred: Logits of the student, same shape.

    Raises:
        TypeError: If `loss` isn't a distillation loss.
        ValueError: If `loss` compares more than the logits of one position, or a number is out of
            its range.

    Example:

    >>> loss = keras_distill.losses.Chunked(keras_distill.losses.SoftTargets(2.0), positions=128)
    >>> float(loss([[[2.0, 0.0]]], [[[0.0, 0.0]]]))
    0.4437...
    """

    takes_logits = True

    def __init__(
        self,
        loss: DistillationLoss | None = None,
        positions: int = 256,
        label_weight: float = 0.0,
        name: str | None = None,
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ):
        self.loss = SoftTargets(temperature=1.0) if loss is None else loss
        check_pointwise(self.loss, "Chunked")
        super().__init__(name=name or self.loss.name, reduction=reduction, dtype=dtype)
        self.positions = whole_number("positions", positions, 1)
        self.label_weight = fraction("label_weight", label_weight)
        self.needs_labels = self.loss.needs_labels or self.label_weight > 0

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        y_true, labels = y_true if self.needs_labels else (y_true, None)
        teacher, student = (
            Output.of(x if hasattr(x, "shape") else ops.convert_to_tensor(x))
            for x in (y_true, y_pred)
        )
        self._check(teacher, student)
        theirs = teacher.factors_at(getattr(self.loss, "temperature", None))
        count = len(theirs.rows)

        def values(logits, *given):
            of_teacher = theirs.logits(given[:count], theirs.shared)
            return self._of_positions(of_teacher, logits, *given[count:])

        ours = _as_tensors(student.factors_at())
        labels = [] if labels is None else [_as_classes(labels, student.shape[:-1])]
        given = [*theirs.rows, *labels]
        given = [ops.convert_to_tensor(x) for x in given]
        rank = len(student.shape) - 1
        with keras.name_scope(self.name):
            each = in_chunks(values, ours, given, rank, self.positions, self.dtype)
            return reduced(each, student.mask, sample_weight, self.reduction, self.dtype)

    def _of_positions(self, teacher, student, labels=None):
        """The values of some positions, whose logits have shape `(positions, classes)`."""
        teacher, student = (finite_logits(ops.cast(x, self.dtype)) for x in (teacher, student))
        y_true = (teacher, labels) if self.loss.needs_labels else teacher
        values = self.loss.call(y_true, student)
        if not self.label_weight:
            return values
        of_labels = label_cross_entropy(labels, student)
        return (1 - self.label_weight) * values + self.label_weight * of_labels

    def _check(self, teacher, student):
        """Raises a `ValueError` if the outputs aren't logits of classes that exclude each other."""
        check_logits("Chunked", student)
        if "sigmoid" in (teacher.activation, student.activation) and (
            getattr(self.loss, "activation", None) != "sigmoid"
        ):
            raise ValueError(
                "`Chunked` compares the probabilities of a softmax over the classes, but a model "
                'ends in a sigmoid. Use `Chunked(SoftTargets(activation="sigmoid"))`.'
            )
        self._check_shapes(teacher, student)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "loss": keras.saving.serialize_keras_object(self.loss),
            "positions": self.positions,
            "label_weight": self.label_weight,
        }


def check_pointwise(loss: Any, wrapper: str) -> None:
    """Raises unless a loss compares the logits of each position by itself, and stays as it is.

    Args:
        loss: The loss.
        wrapper: Name of the class that takes it, for messages.
    """
    if not isinstance(loss, DistillationLoss):
        raise TypeError(
            f"`{wrapper}` takes a loss on logits, such as `keras_distill.losses.SoftTargets()`. "
            f"Received: loss={loss!r}"
        )
    if (
        not loss.takes_logits
        or loss.between_samples
        or loss.uses_mask
        or loss.state is not None
        or isinstance(loss, Chunked)
    ):
        raise ValueError(
            f"`{wrapper}` takes a loss that compares the logits of each position by itself and has "
            "no weights of its own: `SoftTargets`, `SkewedKL`, `JensenShannon`, `LogitMSE`, `DKD` "
            f"or `RLD`. Received: loss={loss!r}"
        )
    for name in hyperparameters(loss):
        value = loss.__dict__[name]
        if isinstance(value, keras.optimizers.schedules.LearningRateSchedule):
            raise ValueError(
                f"The hyperparameters of the loss in `{wrapper}` stay as they are: give `{name}` a "
                f"number. Received: {name}={value!r}"
            )


def _as_tensors(factors):
    rows, shared = (tuple(map(ops.convert_to_tensor, x)) for x in factors[:2])
    return factors._replace(rows=rows, shared=shared)


def _cut(x, rank, size):
    """A tensor of shape `(batch, ..., anything)` as `(chunks, size, anything)`, 0 at the end."""
    shape = ops.shape(x)
    count, tail = _product(shape[:rank]), shape[rank:]
    x = ops.reshape(x, (count, *tail))
    filling = ops.zeros((-count % size, *tail), dtype=x.dtype)
    return ops.reshape(ops.concatenate([x, filling]), (-(-count // size), size, *tail))


def _product(sizes):
    count = 1
    for size in sizes:
        count = count * size
    return count


def _put(x, index, row):
    """`x` with another row at `index`."""
    return ops.scatter_update(x, ops.reshape(index, (1, 1)), row[None])


def _each(count, function, start):
    """What `function(index, *state)` makes of the state, one index after the other."""

    def step(index, *state):
        return (index + 1, *function(index, *state))

    _, *state = ops.while_loop(lambda index, *_: index < count, step, (0, *start))
    return state
