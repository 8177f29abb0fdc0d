"""Relations of pixels to memories of pixels and regions that earlier batches showed."""

import math
from typing import Any

import keras
from keras import ops

from keras_distill._types import PACKAGE, Tensor
from keras_distill.checks import positive, whole_number
from keras_distill.hyperparameters import Hyperparameter
from keras_distill.losses.base import DistillationLoss
from keras_distill.losses.memories import log_shares, pushed
from keras_distill.losses.numerics import kl_divergence, unit
from keras_distill.losses.positions import check_positions, sample_means
from keras_distill.losses.standardized import counted_of


def to_memory(
    y_true: Tensor, y_pred: Tensor, memory: Tensor, temperature: float | Tensor = 0.1
) -> Tensor:
    """Divergence between how similar each position is to what a memory holds.

    Args:
        y_true: Features of the teacher, of unit length, float, shape
            `(batch, positions, channels)`.
        y_pred: Features of the student, likewise.
        memory: Features of unit length, shape `(classes, size, channels)`; rows of zeros are empty.
        temperature: Softening τ > 0 of the similarities.

    Returns:
        One value for each position, shape `(batch, positions)`.
    """
    rows = ops.reshape(memory, (-1, memory.shape[-1]))
    log_p, log_q = (log_shares(x, rows, temperature) for x in (y_true, y_pred))
    return kl_divergence(log_p, log_q)


@keras.saving.register_keras_serializable(PACKAGE)
class CIRKDMemory(DistillationLoss):
    """How similar each pixel is to pixels and regions of earlier batches.

    Memories hold, for each class, the teacher's features of unit length from pixels and from
    regions, which are the means over the pixels of a class in an image. Those of the batch come
    first, and push the oldest out. With all rows of a memory as V, the value of an image is the sum
    over both memories of `mean_a KL(softmax(V t_a / τ) ‖ softmax(V s_a / τ))`, a its labeled
    pixels. Zero at equality.

    Source: Yang et al., "Cross-Image Relational Knowledge Distillation for Semantic Segmentation"
    (arXiv:2204.06986), the memory-based pixel-to-pixel and pixel-to-region terms, and the authors'
    code; τ = 0.1, 16 pixels of each class and image, and a weight of 0.1 are theirs. Theirs are
    longer memories, of which each step compares some that are drawn; here all is compared.
    Costs memory of batch · positions · classes · (pixels + regions). For segmentation, beside
    `CIRKD`, which is the part within the batch, and a loss on the outputs.

    Rows of weight 0, masked positions and pixels whose label is no class are neither compared nor
    remembered. Under `tf.distribute` the memory is that of the first replica.

    Args:
        classes: Number of classes: labels are from 0 to `classes - 1`; others are left out.
        pixels: Pixels of each class that are remembered.
        regions: Regions of each class that are remembered.
        drawn: Pixels of each class that an image adds, drawn at random.
        temperature: Softening τ > 0 of the similarities.
        name: Name of the loss, under which `fit` reports it.
        reduction: As in `keras.losses.Loss`.
        dtype: Dtype or policy of the computation. Defaults to `keras.config.floatx()`.

    Call arguments:
        y_true: `(teacher, labels)`: features of the teacher, float, shape
            `(batch, ..., channels)`, and the class of each position, shape `(batch, ...)`. Labels
            of a larger map are those of the nearest position.
        y_pred: Features of the student, of the teacher's shape: give the `Match` an adapter.

    Raises:
        ValueError: If an argument is out of its range, or the shapes don't fit.

    Example:

    >>> loss = keras_distill.losses.CIRKDMemory(classes=2, temperature=1.0)
    >>> loss.build((None, 2, 1, 2), (None, 2, 1, 2))  # A `Distiller` does this.
    >>> teacher, labels = np.eye(2).reshape(1, 2, 1, 2), np.array([[[0], [1]]])
    >>> student = np.ones((1, 2, 1, 2))  # As like to one pixel as to the other.
    >>> round(float(loss((teacher, labels), student)), 4)
    0.2219
    """

    needs_labels = True
    between_samples = True
    uses_mask = True
    temperature = Hyperparameter(positive)

    def __init__(
        self,
        classes: int,
        pixels: int = 216,
        regions: int = 54,
        drawn: int = 16,
        temperature: Any = 0.1,
        name: str = "cirkd_memory",
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.classes = whole_number("classes", classes, 1)
        self.pixels = whole_number("pixels", pixels, 1)
        self.regions = whole_number("regions", regions, 1)
        self.drawn = whole_number("drawn", drawn, 1)
        self.temperature = temperature
        self.state = PixelMemory(classes, pixels, regions, drawn, name=name)

    def call(
        self,
        y_true: tuple[Tensor, Tensor],
        y_pred: Tensor,
        present: Tensor,
        mask: Tensor | None = None,
    ) -> Tensor:
        teacher, labels = y_true
        check_positions("CIRKDMemory", y_pred)
        labels = nearest(labels, y_pred)
        is_class = ops.equal(ops.cast(labels, "int32")[..., None], ops.arange(self.classes))
        is_class = ops.logical_and(is_class, counted_of(y_pred, present, mask)[..., None])
        positions = math.prod(y_pred.shape[1:-1])
        teacher, student, is_class = (
            ops.reshape(x, (-1, positions, x.shape[-1])) for x in (teacher, y_pred, is_class)
        )
        counted = ops.any(is_class, axis=-1)
        teacher, student = (
            unit(ops.where(counted[..., None], x, ops.zeros_like(x)), axis=-1)
            for x in (teacher, student)
        )
        self.state.remember(teacher, is_class)
        value = sum(
            to_memory(teacher, student, ops.cast(memory, student.dtype), self.temperature)
            for memory in (self.state.pixel_memory, self.state.region_memory)
        )
        return sample_means(value, counted)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "classes": self.classes,
            "pixels": self.pixels,
            "regions": self.regions,
            "drawn": self.drawn,
        }


def nearest(labels: Tensor, features: Tensor) -> Tensor:
    """Labels of shape `(batch, ...)` or `(batch, ..., 1)` at the positions of a map."""
    sizes = features.shape[1:-1]
    if len(labels.shape) == len(features.shape) and labels.shape[-1] == 1:
        labels = ops.squeeze(labels, axis=-1)
    if len(labels.shape) != len(sizes) + 1:
        raise ValueError(
            "`CIRKDMemory` takes the class of each position, shape `(batch, ...)`. Received: "
            f"labels of shape {tuple(labels.shape)} for features of shape {tuple(features.shape)}"
        )
    for axis, size in enumerate(sizes, 1):
        if labels.shape[axis] != size:
            labels = ops.take(labels, [i * labels.shape[axis] // size for i in range(size)], axis)
    return labels


class PixelMemory(keras.layers.Layer):
    """The memories of `CIRKDMemory`, newest rows first; rows of zeros are empty."""

    def __init__(self, classes: int, pixels: int, regions: int, drawn: int, name: str):
        super().__init__(name=name, dtype="float32")
        self.classes, self.pixels, self.regions, self.drawn = classes, pixels, regions, drawn
        self.seed_generator = keras.random.SeedGenerator()

    def build(self, y_true_shape: tuple, y_pred_shape: tuple) -> None:
        for kind, size in (("pixel", self.pixels), ("region", self.regions)):
            memory = self.add_weight(
                shape=(self.classes, size, y_true_shape[-1]),
                initializer="zeros",
                trainable=False,
                aggregation="only_first_replica",
                name=f"{kind}_memory",
            )
            setattr(self, f"{kind}_memory", memory)

    def remember(self, teacher: Tensor, is_class: Tensor) -> None:
        """Adds some pixels and the regions of a batch.

        Args:
            teacher: Features of unit length, shape `(batch, positions, channels)`.
            is_class: Which class each position has, bool, shape `(batch, positions, classes)`.
        """
        teacher = ops.stop_gradient(ops.cast(teacher, "float32"))
        of_class = ops.transpose(is_class, (0, 2, 1))
        sums = ops.matmul(ops.cast(of_class, "float32"), teacher)
        for memory, new in (
            (self.pixel_memory, self._some(teacher, of_class)),
            (self.region_memory, unit(sums, axis=-1)[:, :, None]),
        ):
            new = ops.transpose(new, (1, 0, 2, 3))  # Class, image, row, channel.
            memory.assign(pushed(memory, ops.reshape(new, (self.classes, -1, new.shape[-1]))))

    def _some(self, teacher, of_class):
        """Pixels of each class, at random; shape `(batch, classes, drawn, channels)`."""
        chance = keras.random.uniform(ops.shape(of_class), seed=self.seed_generator)
        drawn = min(self.drawn, of_class.shape[-1])
        chance, index = ops.top_k(ops.where(of_class, chance, -1.0), drawn)
        # In order, so that sums don't depend on chance where all pixels are taken.
        index = ops.sort(ops.where(chance >= 0, index, of_class.shape[-1]))
        after_all = ops.pad(teacher, ((0, 0), (0, 1), (0, 0)))
        index = ops.reshape(index, (-1, self.classes * drawn, 1))
        rows = ops.take_along_axis(after_all, index, axis=1)
        return ops.reshape(rows, (-1, self.classes, drawn, teacher.shape[-1]))
