"""What every distillation loss shares: logits recovered, masks, weights, and state."""

from typing import Any

import keras
from keras import ops

from keras_distill import _keras
from keras_distill._types import Tensor, Tensors
from keras_distill.hyperparameters import hyperparameter_config, hyperparameters
from keras_distill.losses.numerics import finite_logits
from keras_distill.outputs import as_outputs, mask_of, values_of


class DistillationLoss(keras.losses.Loss):
    """Base class of the losses between a teacher and a student.

    Subclasses implement `call(y_true, y_pred)`, `y_true` from the teacher and `y_pred` from the
    student, and return one value per sample (or per sample and position, as Keras' own losses
    do). Seven class attributes declare what else a loss needs; the table "What a loss declares"
    on the page of methods lists them, with who acts on each and which losses set it.

    A loss with weights of its own (a variance to learn, projection heads, a memory) holds them in
    one layer, `state`. A `Distiller` builds it with `loss.build(...)`, trains it along with the
    student, and saves it in checkpoints; it isn't part of the student.

    Args:
        name: Name of the loss, under which `fit` reports it.
        reduction: As in `keras.losses.Loss`.
        dtype: Dtype or policy of the computation. Defaults to `keras.config.floatx()`.
    """

    #: `y_true` is `(teacher, labels)`; a `Distiller` passes the labels.
    needs_labels: bool = False
    #: `y_true` is `(teacher, keys)`, one integer per sample that names it in the whole dataset.
    needs_keys: bool = False
    #: Both sides are logits: where a model ends in softmax or sigmoid, its logits are recovered.
    takes_logits: bool = False
    #: `call` takes `present`, shape `(batch,)`, bool: rows that may influence the others.
    between_samples: bool = False
    #: Teacher's and student's tensors must have the same shape.
    same_shape: bool = True
    #: `call` takes `mask`, bool, shape `(batch, ...)`, or `None`: positions that count, by the
    #: Keras mask of the student's features and by sample weights given per position.
    uses_mask: bool = False
    #: A layer with weights of the loss' own, which `build` builds and a `Distiller` trains.
    state: Any = None

    def __call__(
        self, y_true: Tensors, y_pred: Tensors, sample_weight: Tensor | None = None
    ) -> Tensor:
        given = None
        if self.needs_labels or self.needs_keys:
            y_true, given = y_true
        teacher, student = as_outputs(y_true), as_outputs(y_pred)
        mask = mask_of(student)
        temperature = getattr(self, "temperature", None)
        teacher, y_pred = self._compared(teacher, temperature), self._compared(student)
        with keras.name_scope(self.name):
            y_pred = self._convert(y_pred)
            y_true = teacher = self._convert(teacher)
            if self.takes_logits:
                y_pred = keras.tree.map_structure(finite_logits, y_pred)
                y_true = teacher = keras.tree.map_structure(finite_logits, teacher)
            if given is not None:
                y_true = (teacher, self._convert(given, keep_integers=True))
            if self.same_shape:
                keras.tree.map_structure(self._check_shapes, teacher, y_pred)
            if not self.built:
                raise ValueError(
                    f"`{type(self).__name__}` has weights of its own, which a `Distiller` builds "
                    "and trains. To use it alone, call `loss.build(y_true_shape, y_pred_shape)` "
                    "first, and train `loss.state.trainable_variables` along with the student."
                )
            arguments = {}
            if self.uses_mask:
                arguments["mask"] = counted_positions(y_pred, mask, sample_weight)
            if self.between_samples:
                arguments["present"] = present_rows(y_pred, mask, sample_weight)
            values = self.call(y_true, y_pred, **arguments)
            return reduced(values, mask, sample_weight, self.reduction, self.dtype)

    def build(self, y_true_shape: tuple, y_pred_shape: tuple) -> None:
        """Builds `state`, if there is one, for the given shapes.

        The shapes are saved with the loss, so that a loaded one is built without its teacher.

        Args:
            y_true_shape: Shape of the teacher's features, batch axis first (a tuple of shapes
                where they are a tuple of tensors); without the shape of labels or keys.
            y_pred_shape: Likewise, of the student's features.
        """
        self._build_config = {"y_true_shape": y_true_shape, "y_pred_shape": y_pred_shape}
        if not self.built:
            self.state.build(y_true_shape, y_pred_shape)

    @property
    def built(self) -> bool:
        """Whether there is no state left to build."""
        return self.state is None or self.state.built

    @built.setter
    def built(self, value: bool) -> None:
        """Keras sets this after `build_from_config`; what counts is the state."""

    def get_build_config(self) -> dict | None:
        return getattr(self, "_build_config", None)

    def build_from_config(self, config: dict) -> None:
        self.build(**config)

    def _compared(self, outputs, temperature=None):
        """The tensors of outputs that the loss compares: logits, or values as they are."""
        if not self.takes_logits:
            return values_of(outputs)
        return keras.tree.map_structure(lambda output: output.logits_at(temperature), outputs)

    def _convert(self, x, keep_integers=False):
        """Tensors in the loss' dtype; integers that name things (labels, keys) stay exact."""
        leaves = keras.tree.flatten(x) if isinstance(x, (list, tuple, dict)) else []
        if any(hasattr(leaf, "shape") for leaf in leaves):
            return keras.tree.map_structure(lambda leaf: self._convert(leaf, keep_integers), x)
        x = ops.convert_to_tensor(x)
        if keep_integers and not keras.backend.is_float_dtype(x.dtype):
            return x
        return ops.cast(x, self.dtype)

    def _check_shapes(self, teacher, student):
        """Raises a `ValueError` where shapes differ, which broadcasting might hide."""
        shapes = tuple(teacher.shape), tuple(student.shape)
        if len(shapes[0]) != len(shapes[1]) or any(
            t != s and None not in (t, s) for t, s in zip(*shapes, strict=True)
        ):
            raise ValueError(
                f"`{type(self).__name__}` compares values of one shape. Received: teacher "
                f"(`y_true`) of shape {shapes[0]}, student (`y_pred`) of shape {shapes[1]}. An "
                'adapter makes features comparable: `Match(..., adapter="auto")`.'
            )

    def get_config(self) -> dict:
        config = {**super().get_config(), "dtype": self.dtype}
        for name in hyperparameters(self):
            config[name] = hyperparameter_config(self, name)
        return config

    @classmethod
    def from_config(cls, config: dict) -> "DistillationLoss":
        return cls(**keras.saving.deserialize_keras_object(config))


def present_rows(y_pred: Tensors, mask: Tensor | None, sample_weight: Tensor | None) -> Tensor:
    """Rows of weight above 0 that aren't masked entirely. Shape `(batch,)`, bool."""
    present = ops.ones(ops.shape(keras.tree.flatten(y_pred)[0])[:1], dtype="bool")
    for x in (mask, sample_weight):
        if x is not None:
            x = ops.not_equal(ops.convert_to_tensor(x), 0)
            present = ops.logical_and(present, ops.any(x, axis=tuple(range(1, len(x.shape)))))
    return present


def counted_positions(
    y_pred: Tensors, mask: Tensor | None, sample_weight: Tensor | None
) -> Tensor | None:
    """Positions that aren't masked and whose own weight isn't 0: bool, or `None` for all."""
    if sample_weight is not None:
        shape = keras.tree.flatten(y_pred)[0].shape
        weights = ops.convert_to_tensor(sample_weight)
        rank = len(weights.shape)
        if 1 < rank < len(shape) and tuple(weights.shape[1:]) == tuple(shape[1:rank]):
            weighted = ops.not_equal(weights, 0)
            if mask is None:
                return weighted
            if len(mask.shape) == rank:
                return ops.logical_and(mask, weighted)
    return mask


class _Values(keras.losses.Loss):
    """Passes values on to the weights, masks and reductions of `keras.losses.Loss`."""

    def call(self, y_true, y_pred):
        return y_pred


def reduced(
    values: Tensor, mask: Tensor | None, sample_weight: Tensor | None, reduction: Any, dtype: Any
) -> Tensor:
    """Reduces values as Keras does, with weights and mask brought to the values' rank first.

    Keras multiplies values of shape `(batch, steps)` by weights of shape `(batch,)` along the
    wrong axis. Here weights of lower rank hold for all positions of their row; weights and masks
    of higher rank count by their mean over the positions that a value sums up. A scalar stands for
    the mean of the batch; Keras would count it once for each replica.
    """
    rank = len(values.shape)
    if sample_weight is not None and rank:
        sample_weight = _to_rank(ops.cast(sample_weight, dtype), rank)
        sample_weight = sample_weight * ops.ones_like(values, dtype=dtype)
    if not rank and reduction not in (None, "none"):
        values = ops.reshape(values, (1,))
    if mask is not None and rank:
        mask = _to_rank(mask, rank)
        values = ops.where(mask, values, ops.zeros_like(values))
        values = _keras.with_mask(values, ops.broadcast_to(mask, ops.shape(values)))
    return _Values(reduction=reduction, dtype=dtype)(values, values, sample_weight)


def _to_rank(x, rank):
    """`x` with trailing axes added, or reduced away (mean; any for bool), until it has `rank`."""
    x = ops.convert_to_tensor(x)
    extra = tuple(range(rank, len(x.shape)))
    if extra:
        x = ops.any(x, axis=extra) if x.dtype == "bool" else ops.mean(x, axis=extra)
    return ops.reshape(x, (*ops.shape(x), *(1,) * (rank - len(x.shape))))
