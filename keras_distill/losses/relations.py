"""Losses on how the samples of a batch, or of the whole data set, relate to one another."""

import math

import keras
import tensorflow as tf
from keras import ops

from keras_distill.losses.base import (
    PACKAGE,
    DistillationLoss,
    Hyperparameter,
    fraction,
    positive,
)
from keras_distill.losses.numerics import huber, rounding, safe_sqrt, unit, unit_peak


class _Relation(DistillationLoss):
    """A loss on the relations between the samples of a batch.

    Widths may differ between teacher and student. Rows of weight 0 have no part in any relation,
    and masked positions none in a sample.
    """

    same_shape = False
    between_samples = True
    uses_mask = True

    def __init__(self, name, reduction="sum_over_batch_size", dtype=None):
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    def call(self, y_true, y_pred, present, mask=None):
        count = ops.maximum(ops.sum(ops.cast(present, y_pred.dtype)), 1)
        teacher = self._relations(_vectors(y_true, present, mask), present)
        student = self._relations(_vectors(y_pred, present, mask), present)
        return self._compare(teacher, student, count)


def _vectors(features, present, mask):
    """Features as `(batch, values)`, with zeros for absent rows and masked positions."""
    rank = len(features.shape)
    counted = ops.reshape(present, (-1, *(1,) * (rank - 1)))
    if mask is not None and len(mask.shape) < rank:
        if any(
            None not in (a, b) and a != b
            for a, b in zip(mask.shape[1:], features.shape[1:], strict=False)
        ):
            raise ValueError(
                f"The student's mask of shape {tuple(mask.shape)} doesn't fit features of shape "
                f"{tuple(features.shape)}. Compare layers behind the pooling of the steps."
            )
        mask = ops.reshape(mask, (*ops.shape(mask), *(1,) * (rank - len(mask.shape))))
        counted = ops.logical_and(counted, mask)
    features = ops.where(counted, features, ops.zeros_like(features))
    return ops.reshape(features, (ops.shape(features)[0], -1))


def _pairs(present):
    """Which pairs of rows are both present, shape `(batch, batch)`."""
    return ops.logical_and(present[:, None], present[None, :])


@keras.saving.register_keras_serializable(PACKAGE)
class RelationalDistance(_Relation):
    """Distances between the samples of a batch (RKD-D).

    With `d_ij = ‖f_i − f_j‖ / μ`, μ the mean of the distances that aren't 0, the value of sample i
    is `mean_j huber(d_ij of the student − d_ij of the teacher)`. Zero where the student's features
    are the teacher's rotated, shifted or scaled, of whatever width.

    Source: Park et al., "Relational Knowledge Distillation" (arXiv:1904.05068), equations 5 to 8;
    the mean is over all pairs, as in the authors' code. They weigh it 25 in classification,
    beside `RelationalAngle` at 50.
    Costs batch² memory and time. For embeddings that are compared by distance, and beside soft
    targets.

    Under `tf.distribute` each replica relates its own part of the batch, so that batches of 32 or
    more *per replica* are wanted.

    Args:
        name: Name of the loss, under which `fit` reports it.
        reduction: As in `keras.losses.Loss`.
        dtype: Dtype or policy of the computation. Defaults to `keras.config.floatx()`.

    Call arguments:
        y_true: Features of the teacher, float, shape `(batch, ...)`; all axes but the first are
            flattened.
        y_pred: Features of the student, likewise.

    Example:

    >>> loss = keras_distill.losses.RelationalDistance()
    >>> teacher = [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0]]
    >>> student = [[5.0], [5.0], [7.0]]  # Can't tell the first two apart.
    >>> float(loss(teacher, student))
    0.0939...
    """

    def __init__(self, name="relational_distance", reduction="sum_over_batch_size", dtype=None):
        super().__init__(name, reduction, dtype)

    def _relations(self, vectors, present):
        distances = _distances(vectors, present)
        is_apart = distances > 0
        count = ops.sum(ops.cast(is_apart, distances.dtype))
        mean = ops.sum(distances) / ops.maximum(count, 1)
        return distances / ops.where(count > 0, mean, ops.ones_like(mean))

    def _compare(self, teacher, student, count):
        return ops.sum(huber(student - teacher), axis=1) / count


def _distances(vectors, present):
    """Euclidean distances between present rows, up to a common factor; 0 where rows are equal."""
    # Products round less around the mean, which leaves distances as they are.
    weights = ops.cast(present, vectors.dtype)[:, None]
    mean = ops.sum(weights * vectors, axis=0) / ops.maximum(ops.sum(weights), 1)
    vectors = unit_peak(weights * (vectors - ops.stop_gradient(mean)), axis=(0, 1))
    squares = ops.sum(ops.square(vectors), axis=1)
    sums = squares[:, None] + squares[None, :]
    apart = sums - 2 * ops.matmul(vectors, ops.transpose(vectors))
    # What is smaller is nothing but rounding.
    is_apart = ops.logical_and(_pairs(present), apart > 8 * rounding(apart.dtype) * sums)
    return safe_sqrt(ops.where(is_apart, apart, ops.zeros_like(apart)))


@keras.saving.register_keras_serializable(PACKAGE)
class RelationalAngle(_Relation):
    """Angles between the samples of a batch (RKD-A).

    With `a_ijk = cos ∠(f_j − f_i, f_k − f_i)`, the value of sample i is
    `mean_jk huber(a_ijk of the student − a_ijk of the teacher)`. Zero where the student's features
    are the teacher's rotated, shifted or scaled, of whatever width.

    Source: Park et al., "Relational Knowledge Distillation" (arXiv:1904.05068), equations 9 to 11;
    the mean is over all triples, as in the authors' code. They weigh it 50 in classification,
    beside `RelationalDistance` at 25.
    Costs batch³ + batch² · width memory, and batch³ · width time: for a batch of 128 and float32
    that is 8 MB for the angles alone, for 512 it is 512 MB, and several times that for the
    gradient. For small batches; it says more than distances alone.

    Under `tf.distribute` each replica relates its own part of the batch.

    Args:
        name: Name of the loss, under which `fit` reports it.
        reduction: As in `keras.losses.Loss`.
        dtype: Dtype or policy of the computation. Defaults to `keras.config.floatx()`.

    Call arguments:
        y_true: Features of the teacher, float, shape `(batch, ...)`; all axes but the first are
            flattened.
        y_pred: Features of the student, likewise.

    Example:

    >>> loss = keras_distill.losses.RelationalAngle()
    >>> teacher = [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0]]
    >>> student = [[0.0], [1.0], [2.0]]  # All on one line.
    >>> float(loss(teacher, student))
    0.1296...
    """

    def __init__(self, name="relational_angle", reduction="sum_over_batch_size", dtype=None):
        super().__init__(name, reduction, dtype)

    def _relations(self, vectors, present):
        differences = vectors[None, :, :] - vectors[:, None, :]
        pairs = _pairs(present)[:, :, None]
        directions = unit(ops.where(pairs, differences, ops.zeros_like(differences)), axis=-1)
        return ops.matmul(directions, ops.transpose(directions, (0, 2, 1)))

    def _compare(self, teacher, student, count):
        return ops.sum(huber(student - teacher), axis=(1, 2)) / ops.square(count)


@keras.saving.register_keras_serializable(PACKAGE)
class SimilarityPreserving(_Relation):
    """Which samples of a batch activate a layer alike.

    With `G = F Fᵀ`, F the flattened features and each row of G divided by its Euclidean norm, the
    value of sample i is `Σ_j (G_t − G_s)_ij² / batch`. Zero where the student's features are the
    teacher's rotated or scaled, of whatever width.

    Source: Tung and Mori, "Similarity-Preserving Knowledge Distillation" (arXiv:1907.09682),
    equations 1 to 4; the mean over samples divides by batch² as theirs. They weigh it 3000 at
    batches of 128 to 256, on the last convolution's map.
    Costs batch² memory and batch² · size time. For students whose features have another form than
    the teacher's; no adapter is needed.

    Under `tf.distribute` each replica relates its own part of the batch.

    Args:
        name: Name of the loss, under which `fit` reports it.
        reduction: As in `keras.losses.Loss`.
        dtype: Dtype or policy of the computation. Defaults to `keras.config.floatx()`.

    Call arguments:
        y_true: Features of the teacher, float, shape `(batch, ...)`; all axes but the first are
            flattened.
        y_pred: Features of the student, likewise.

    Example:

    >>> loss = keras_distill.losses.SimilarityPreserving()
    >>> teacher, student = [[1.0, 0.0], [0.0, 1.0]], [[2.0], [2.0]]
    >>> float(loss(teacher, student))  # For the student both samples are alike.
    0.2928...
    """

    def __init__(self, name="similarity_preserving", reduction="sum_over_batch_size", dtype=None):
        super().__init__(name, reduction, dtype)

    def _relations(self, vectors, present):
        vectors = unit_peak(vectors, axis=(0, 1))
        return unit(ops.matmul(vectors, ops.transpose(vectors)), axis=1)

    def _compare(self, teacher, student, count):
        return ops.sum(ops.square(student - teacher), axis=1) / count


@keras.saving.register_keras_serializable(PACKAGE)
class Contrastive(DistillationLoss):
    """Contrastive representation distillation (CRD): which sample of the data set is this?

    Two projection heads, trained along, embed the student's and the teacher's features on a
    sphere. Memories hold an embedding of every sample of the data set from both sides. The
    student's embedding s is to find the teacher's own memory of the same sample among K others:
    `−log h(t⁺) − Σ_k log(1 − h(t_k))`, `h(t) = e / (e + K/N)`, `e = exp(s·t / τ) / Z`, N the size
    of the data set; and the teacher's embedding the student's, likewise. The value is the sum of
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
        samples: Size N of the data set: keys are from 0 to `samples - 1`.
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
        samples,
        dimensions=128,
        temperature=0.07,
        negatives=16384,
        momentum=0.5,
        name="contrastive",
        reduction="sum_over_batch_size",
        dtype=None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        for argument, value, least in (
            ("samples", samples, 2),
            ("dimensions", dimensions, 1),
            ("negatives", negatives, 1),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(
                    f"`{argument}` must be a whole number of at least {least}. "
                    f"Received: {argument}={value!r}"
                )
        self.samples = samples
        self.dimensions = dimensions
        self.temperature = temperature
        self.negatives = negatives
        self.momentum = fraction("momentum", momentum)
        self.state = ContrastiveMemory(samples, dimensions, name=name)

    def call(self, y_true, y_pred, present):
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
        value = _log_loss(own - log_z[0], other - log_z[0], is_other)
        value += _log_loss(own_t - log_z[1], other_t - log_z[1], is_other)
        self.state.remember(student, teacher, keys, present, self.momentum)
        return value

    def _similarities(self, embeddings, memory, keys, others):
        """To the memory of the sample itself, `(batch,)`, and of others, `(batch, others)`."""
        dtype = embeddings.dtype
        temperature = ops.cast(self.temperature, dtype)
        own = ops.sum(embeddings * ops.cast(tf.gather(memory.value, keys), dtype), axis=1)
        other = ops.cast(tf.gather(memory.value, others), dtype)
        return own / temperature, ops.matmul(embeddings, ops.transpose(other)) / temperature

    def get_config(self):
        return {
            **super().get_config(),
            "samples": self.samples,
            "dimensions": self.dimensions,
            "negatives": self.negatives,
            "momentum": self.momentum,
        }


def _log_loss(own, other, is_other):
    """Cross-entropy of telling a sample's own memory, by its log-odds, from those of others."""
    unlike = ops.where(is_other, ops.log_sigmoid(-other), ops.zeros_like(other))
    return -ops.log_sigmoid(own) - ops.sum(unlike, axis=1)


class ContrastiveMemory(keras.layers.Layer):
    """Projection heads, memories and normalizers of `Contrastive`.

    Memories are reached through TensorFlow's own variables: only what belongs to a batch is read
    and written, where Keras' operations would copy all of it.
    """

    def __init__(self, samples, dimensions, name):
        super().__init__(name=name, dtype="float32")
        self.samples = samples
        self.dimensions = dimensions
        self.seed_generator = keras.random.SeedGenerator()

    def build(self, y_true_shape, y_pred_shape):
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

    def embed(self, student, teacher, present):
        """Both sides' features on the unit sphere, of zeros for absent rows."""
        return tuple(
            unit(head(_vectors(features, present, None)), axis=1)
            for head, features in ((self.student_head, student), (self.teacher_head, teacher))
        )

    def draw(self, count):
        """Keys of `count` samples."""
        return keras.random.randint(
            (count,), 0, self.samples, dtype="int32", seed=self.seed_generator
        )

    def log_normalizers(self, sides, is_other, present):
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
        log_z = ops.where(is_first, estimate, self.log_z)
        self.log_z.assign(log_z)
        self.is_started.assign(ops.where(is_first, 1.0, self.is_started))
        return log_z

    def remember(self, student, teacher, keys, present, momentum):
        """Moves the memories of a batch's samples towards their embeddings."""
        same = ops.logical_and(keys[:, None] == keys[None, :], _pairs(present))
        times = ops.maximum(ops.sum(ops.cast(same, "float32"), axis=1, keepdims=True), 1)
        for memory, new in ((self.student_memory, student), (self.teacher_memory, teacher)):
            old = tf.gather(memory.value, keys)
            new = ops.cast(ops.stop_gradient(new), "float32")
            change = (unit(momentum * old + (1 - momentum) * new, axis=1) - old) / times
            _add_rows(memory, keys, ops.where(present[:, None], change, ops.zeros_like(change)))


def _add_rows(memory, keys, change):
    """Adds to rows of a variable, over all replicas."""
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if replicas == 1:
        memory.value.scatter_nd_add(keys[:, None], change)
    else:
        # The replicas' values are averaged.
        rows = tf.scatter_nd(keys[:, None], change, memory.shape)
        memory.assign(memory + replicas * rows)
