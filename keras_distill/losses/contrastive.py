"""Contrastive representation distillation: each sample beside the whole dataset."""

import math
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from keras_distill._types import PACKAGE, Tensor
from keras_distill.checks import fraction, positive, whole_number
from keras_distill.hyperparameters import Hyperparameter
from keras_distill.losses.base import DistillationLoss
from keras_distill.losses.numerics import scalar, unit
from keras_distill.losses.relations import pairs, row_vectors


def contrast(own: Tensor, other: Tensor, is_other: Tensor) -> Tensor:
    """Cross-entropy of telling a sample's own memory from those of other samples.

    Args:
        own: Log-odds that the own memory is the sample's, float, shape `(batch,)`.
        other: Log-odds of other memories, shape `(batch, others)`.
        is_other: Which of them are of other samples indeed, bool, shape `(batch, others)`.

    Returns:
        One value per sample, shape `(batch,)`.
    """
    unlike = ops.where(is_other, ops.log_sigmoid(-other), ops.zeros_like(other))
    return -ops.log_sigmoid(own) - ops.sum(unlike, axis=1)


@keras.saving.register_keras_serializable(PACKAGE)
class Contrastive(DistillationLoss):
    """Contrastive representation distillation (CRD): which sample of the dataset is this?

    Two projection heads, trained along with the student, embed the features of both sides on a
    sphere. Memories hold an embedding of every sample of the dataset from both sides. The
    student's embedding s is to find the teacher's own memory of the same sample among K others:
    `−log h(t⁺) − Σ_k log(1 − h(t_k))`, `h(t) = e / (e + K/N)`, `e = exp(s·t / τ) / Z`, N the size
    of the dataset; and the teacher's embedding the student's, likewise. The value is the sum of
    both. Z is N times the mean of `exp(s·t / τ)` over the first batch, then constant. After each
    step, the memories of the batch's samples move towards their new embeddings.

    Source: Tian, Krishnan and Isola, "Contrastive Representation Distillation" (arXiv:1910.10699),
    equations 10 to 19, and the authors' code for Z and the memory. Defaults are theirs, with a
    weight of 0.8 on the layer before the classifier. Here all samples of a batch share one draw of
    K others, which costs the same in expectation and saves memory; a sample isn't its own other.
    Costs memory of 2 · samples · dimensions floats (51 MB for 50,000 samples) and, for each step,
    K · dimensions products per sample. Not exported. For the last features of classifiers, where
    it was among the best of its time.

    Each sample needs a key, the same in every epoch: see `keras_distill.teachers.Keyed`. Under
    `tf.distribute` every replica has the whole memory and the changes of all replicas are added
    up, which sends all of it in each step.

    Args:
        samples: Size N of the dataset: keys are from 0 to `samples - 1`.
        dimensions: Size of the embeddings.
        temperature: τ > 0.
        negatives: Number K of other samples. From `samples` on, all of them are taken, without
            drawing.
        momentum: Part of a memory that stays when its sample comes by, from 0 to 1.
        name: Name of the loss, under which `fit` reports it.
        reduction: As in `keras.losses.Loss`.
        dtype: Dtype or policy of the computation. Defaults to `keras.config.floatx()`.

    Call arguments:
        y_true: `(teacher, keys)`: features of the teacher, float, shape `(batch, ...)`, all axes
            but the first flattened, and the samples' keys, integers of shape `(batch,)`.
        y_pred: Features of the student, float, shape `(batch, ...)`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:

    >>> loss = keras_distill.losses.Contrastive(samples=1000, dimensions=16, negatives=64)
    >>> loss.build((None, 32), (None, 8))  # A `Distiller` does this.
    >>> teacher, keys, student = np.ones((2, 32)), [5, 900], np.ones((2, 8))
    >>> loss((teacher, np.array(keys)), student).shape
    TensorShape([])
    """

    needs_keys = True
    same_shape = False
    between_samples = True
    temperature = Hyperparameter(positive)

    def __init__(
        self,
        samples: int,
        dimensions: int = 128,
        temperature: Any = 0.07,
        negatives: int = 16384,
        momentum: float = 0.5,
        name: str = "contrastive",
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.samples = whole_number("samples", samples, 2)
        self.dimensions = whole_number("dimensions", dimensions, 1)
        self.temperature = temperature
        self.negatives = whole_number("negatives", negatives, 1)
        self.momentum = fraction("momentum", momentum)
        self.state = ContrastiveMemory(samples, dimensions, name=name)

    def call(self, y_true: tuple[Tensor, Tensor], y_pred: Tensor, present: Tensor) -> Tensor:
        teacher, keys = y_true
        keys = ops.cast(ops.reshape(keys, (-1,)), "int32")
        keys = ops.where(present, keys, ops.zeros_like(keys))
        student, teacher = (
            ops.cast(x, y_pred.dtype) for x in self.state.embed(y_pred, teacher, present)
        )
        if self.negatives < self.samples:
            others, count = self.state.draw(self.negatives), self.negatives
        else:
            others, count = ops.arange(self.samples, dtype="int32"), self.samples - 1
        is_other = others[None, :] != keys[:, None]

        own, other = self._similarities(student, self.state.teacher_memory, keys, others)
        own_t, other_t = self._similarities(teacher, self.state.student_memory, keys, others)
        log_z = self.state.log_normalizers([(own, other), (own_t, other_t)], is_other, present)
        # In h, Z and K/N are both factors of the odds.
        log_z = ops.cast(log_z, own.dtype) + math.log(count / self.samples)
        value = contrast(own - log_z[0], other - log_z[0], is_other)
        value += contrast(own_t - log_z[1], other_t - log_z[1], is_other)
        self.state.remember(student, teacher, keys, present, self.momentum)
        return value

    def _similarities(self, embeddings, memory, keys, others):
        """To the memory of the sample itself, `(batch,)`, and of others, `(batch, others)`."""
        dtype = embeddings.dtype
        temperature = scalar(self.temperature, dtype)
        own = ops.sum(embeddings * ops.cast(_rows(memory, keys), dtype), axis=1)
        other = ops.cast(_rows(memory, others), dtype)
        return own / temperature, ops.matmul(embeddings, ops.transpose(other)) / temperature

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "samples": self.samples,
            "dimensions": self.dimensions,
            "negatives": self.negatives,
            "momentum": self.momentum,
        }


class ContrastiveMemory(keras.layers.Layer):
    """Projection heads, memories and normalizers of `Contrastive`.

    With TensorFlow, memories are reached through its own variables: only what belongs to a batch
    is read and written, where Keras' operations would copy all of it.
    """

    def __init__(self, samples: int, dimensions: int, name: str):
        super().__init__(name=name, dtype="float32")
        self.samples = samples
        self.dimensions = dimensions
        self.seed_generator = keras.random.SeedGenerator()

    def build(self, y_true_shape: tuple, y_pred_shape: tuple) -> None:
        for side, shape in (("teacher", y_true_shape), ("student", y_pred_shape)):
            head = keras.layers.Dense(self.dimensions, dtype="float32", name=f"{side}_head")
            head.build((None, math.prod(shape[1:])))
            setattr(self, f"{side}_head", head)
            size = math.sqrt(3 / self.dimensions)  # So that rows have a length of about 1.
            memory = self.add_weight(
                shape=(self.samples, self.dimensions),
                initializer=keras.initializers.RandomUniform(-size, size),
                trainable=False,
                aggregation="mean",
                name=f"{side}_memory",
            )
            setattr(self, f"{side}_memory", memory)
        self.log_z = self.add_weight(
            shape=(2,), initializer="zeros", trainable=False, aggregation="mean", name="log_z"
        )
        self.is_started = self.add_weight(
            shape=(), initializer="zeros", trainable=False, aggregation="mean", name="is_started"
        )

    def embed(self, student: Tensor, teacher: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Both sides' features on the unit sphere, of zeros for absent rows."""
        return tuple(
            unit(head(row_vectors(features, present)), axis=1)
            for head, features in ((self.student_head, student), (self.teacher_head, teacher))
        )

    def draw(self, count: int) -> Tensor:
        """Keys of `count` samples."""
        return keras.random.randint(
            (count,), 0, self.samples, dtype="int32", seed=self.seed_generator
        )

    def log_normalizers(self, sides: list, is_other: Tensor, present: Tensor) -> Tensor:
        """`log Z` of both sides, from this batch if it is the first."""
        counted = ops.concatenate([ops.ones_like(present)[:, None], is_other], axis=1)
        counted = ops.logical_and(counted, present[:, None])
        count = ops.sum(ops.cast(counted, "float32"))
        means = []
        for own, other in sides:
            both = ops.cast(ops.concatenate([own[:, None], other], axis=1), "float32")
            peak = ops.max(both)
            total = ops.sum(ops.where(counted, ops.exp(both - peak), ops.zeros_like(both)))
            means.append(peak + ops.log(total / count))
        estimate = ops.stop_gradient(ops.stack(means)) + math.log(self.samples)
        is_first = ops.logical_and(ops.equal(self.is_started, 0), count > 0)
        # JAX compiles no operation on a variable itself.
        log_z, is_started = map(ops.convert_to_tensor, (self.log_z, self.is_started))
        log_z = ops.where(is_first, estimate, log_z)
        self.log_z.assign(log_z)
        self.is_started.assign(ops.where(is_first, 1.0, is_started))
        return log_z

    def remember(
        self, student: Tensor, teacher: Tensor, keys: Tensor, present: Tensor, momentum: float
    ) -> None:
        """Moves the memories of a batch's samples towards their embeddings."""
        same = ops.logical_and(keys[:, None] == keys[None, :], pairs(present))
        times = ops.maximum(ops.sum(ops.cast(same, "float32"), axis=1, keepdims=True), 1)
        for memory, new in ((self.student_memory, student), (self.teacher_memory, teacher)):
            old = _rows(memory, keys)
            new = ops.cast(ops.stop_gradient(new), "float32")
            change = (unit(momentum * old + (1 - momentum) * new, axis=1) - old) / times
            _add_rows(memory, keys, ops.where(present[:, None], change, ops.zeros_like(change)))


def _rows(memory, keys):
    """Rows of a variable."""
    if keras.backend.backend() == "tensorflow":
        return tf.gather(memory.value, keys)
    return ops.take(ops.convert_to_tensor(memory), keys, axis=0)


def _add_rows(memory, keys, change):
    """Adds to rows of a variable, over all replicas."""
    if keras.backend.backend() != "tensorflow":
        memory.assign(memory + ops.scatter(keys[:, None], change, memory.shape))
        return
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if replicas == 1:
        memory.value.scatter_nd_add(keys[:, None], change)
    else:
        # The replicas' values are averaged.
        rows = tf.scatter_nd(keys[:, None], change, memory.shape)
        memory.assign(memory + replicas * rows)
