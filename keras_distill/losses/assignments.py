"""Which of the samples seen before a sample is like, by the teacher and by the student."""

import math
from typing import Any

import keras
from keras import ops

from keras_distill._types import PACKAGE, Tensor
from keras_distill.checks import positive, whole_number
from keras_distill.hyperparameters import Hyperparameter
from keras_distill.losses.base import DistillationLoss
from keras_distill.losses.memories import log_shares, pushed
from keras_distill.losses.numerics import unit
from keras_distill.losses.relations import row_vectors


def assignment(
    y_true: Tensor,
    y_pred: Tensor,
    queue: Tensor,
    teacher_temperature: float | Tensor = 0.01,
    temperature: float | Tensor = 0.2,
) -> Tensor:
    """Cross-entropy of how similar each sample is to a queue of samples, and to itself.

    Args:
        y_true: Embeddings of the teacher, of unit length, float, shape `(batch, dimensions)`.
        y_pred: Embeddings of the student, likewise.
        queue: The teacher's embeddings of other samples, of unit length, shape
            `(size, dimensions)`; rows of zeros are empty.
        teacher_temperature: Softening > 0 of the teacher's similarities.
        temperature: Softening > 0 of the student's.

    Returns:
        One value per sample, shape `(batch,)`.
    """
    log_p = log_shares(y_true, queue, teacher_temperature, own=y_true)
    log_q = log_shares(y_pred, queue, temperature, own=y_true)
    return -ops.sum(ops.exp(log_p) * log_q, axis=-1)


@keras.saving.register_keras_serializable(PACKAGE)
class SEED(DistillationLoss):
    """Self-supervised distillation (SEED): which samples seen before is this one like?

    A queue D holds the teacher's embeddings of the samples of earlier batches; to it comes the
    teacher's embedding t of the sample itself. The value is the cross-entropy of the student's
    similarities against the teacher's, `−Σ_d p(d) log q(d)` with `p = softmax(d·t / τ_t)` and
    `q = softmax(d·s / τ)` over `d ∈ D ∪ {t}`, all embeddings of unit length. Then t joins the
    queue, and pushes the oldest out.

    Source: Fang et al., "SEED: Self-supervised Distillation for Visual Representation"
    (arXiv:2101.04731), equations 2 to 4. Temperatures and the length of the queue are the paper's.
    Its queue starts from random vectors, this one empty: rows that aren't filled have no part, so
    that the first batch, which sees itself alone, gives 0.
    Costs memory of `size · dimensions` floats and, for each step, `size · dimensions` products per
    sample and side. For backbones, on samples without labels; compare it with `Hint` and cosine
    similarity, which cost less.

    Samples of weight 0 neither count nor join the queue. Under `tf.distribute` the queue is that of
    the first replica.

    Args:
        size: Length of the queue.
        teacher_temperature: Softening τ_t > 0 of the teacher's similarities.
        temperature: Softening τ > 0 of the student's similarities.
        name: Name of the loss, under which `fit` reports it.
        reduction: As in `keras.losses.Loss`.
        dtype: Dtype or policy of the computation. Defaults to `keras.config.floatx()`.

    Call arguments:
        y_true: Embeddings of the teacher, float, shape `(batch, ...)`, all axes but the first
            flattened; scaled to unit length here.
        y_pred: Embeddings of the student, of the teacher's shape: give the `Match` an adapter.

    Raises:
        ValueError: If an argument is out of its range, or the shapes differ.

    Example:

    >>> loss = keras_distill.losses.SEED(size=4)
    >>> loss.build((None, 2), (None, 2))  # A `Distiller` does this.
    >>> teacher, student = np.eye(2), np.ones((2, 2))
    >>> float(loss(teacher, student))  # The queue is empty.
    0.0
    >>> round(float(loss(teacher, student)), 4)  # It holds both samples.
    1.0986
    """

    between_samples = True
    teacher_temperature = Hyperparameter(positive)
    temperature = Hyperparameter(positive)

    def __init__(
        self,
        size: int = 65536,
        teacher_temperature: Any = 0.01,
        temperature: Any = 0.2,
        name: str = "seed",
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.size = whole_number("size", size, 1)
        self.teacher_temperature = teacher_temperature
        self.temperature = temperature
        self.state = Queue(size, name=name)

    def call(self, y_true: Tensor, y_pred: Tensor, present: Tensor) -> Tensor:
        teacher, student = (unit(row_vectors(x, present), axis=1) for x in (y_true, y_pred))
        queue = ops.cast(self.state.rows, student.dtype)
        value = assignment(teacher, student, queue, self.teacher_temperature, self.temperature)
        self.state.push(teacher)
        return value

    def get_config(self) -> dict:
        return {**super().get_config(), "size": self.size}


class Queue(keras.layers.Layer):
    """Embeddings of earlier batches, newest first; rows of zeros are empty."""

    def __init__(self, size: int, name: str):
        super().__init__(name=name, dtype="float32")
        self.size = size

    def build(self, y_true_shape: tuple, y_pred_shape: tuple) -> None:
        if None in y_true_shape[1:]:
            raise ValueError(
                "`SEED` keeps embeddings, whose size must be known. Received: teacher's output of "
                f"shape {y_true_shape}. Take the mean of maps over positions."
            )
        self.rows = self.add_weight(
            shape=(self.size, math.prod(y_true_shape[1:])),
            initializer="zeros",
            trainable=False,
            aggregation="only_first_replica",
            name="queue",
        )

    def push(self, embeddings: Tensor) -> None:
        """Adds embeddings of unit length, shape `(batch, dimensions)`; zeros are left out."""
        new = ops.stop_gradient(ops.cast(embeddings, "float32"))
        self.rows.assign(pushed(ops.convert_to_tensor(self.rows)[None], new[None])[0])
