"""What every distillation loss shares: logits recovered, hyperparameters, masks and weights."""

import math

import keras
from keras import ops

PACKAGE = "keras_distill"


class Hyperparameter:
    """A scalar attribute of a loss that may change while training goes on.

    Reading gives a Python float, until a `Distiller` binds the attribute to a variable of its
    own: from then on reading gives the variable, so that a traced training step sees every later
    assignment without being traced again. Assigning checks the value first.
    """

    def __init__(self, check):
        self._check = check

    def __set_name__(self, owner, name):
        self.name = name

    def __get__(self, instance, owner=None):
        if instance is None:
            return self
        if self.name not in instance.__dict__:
            raise AttributeError(self.name)
        value = instance.__dict__[self.name]
        return value.variable if isinstance(value, Bound) else value

    def __set__(self, instance, value):
        current = instance.__dict__.get(self.name)
        if isinstance(value, Bound):
            instance.__dict__[self.name] = value
        elif isinstance(value, keras.optimizers.schedules.LearningRateSchedule):
            if isinstance(current, Bound):
                raise ValueError(
                    f"`{self.name}` already belongs to a `Distiller`; give its schedule when the "
                    "loss is constructed, or change it with `keras_distill.callbacks.Schedule`."
                )
            instance.__dict__[self.name] = value
        else:
            if isinstance(current, Bound):
                current.assign(value)
            else:
                instance.__dict__[self.name] = self.check(value)

    def check(self, value) -> float:
        """`value` as a float in the range, or an error that names the attribute."""
        return self._check(self.name, value)


class Bound:
    """The variable that a `Distiller` keeps for a hyperparameter, and its schedule if any."""

    def __init__(self, variable, check, schedule=None):
        self.variable = variable
        self.check = check
        self.schedule = schedule

    def assign(self, value):
        """Sets the variable to a value in its range."""
        self.variable.assign(self.check(value))


def hyperparameters(instance) -> list[str]:
    """Names of the attributes of `instance` that may change while training goes on."""
    return [
        name
        for cls in reversed(type(instance).__mro__)
        for name, value in vars(cls).items()
        if isinstance(value, Hyperparameter)
    ]


def hyperparameter_config(instance, name):
    """The value of a hyperparameter for `get_config`: a float, or its schedule."""
    value = instance.__dict__[name]
    if isinstance(value, Bound):
        value = value.schedule or float(value.variable)
    if isinstance(value, keras.optimizers.schedules.LearningRateSchedule):
        return keras.saving.serialize_keras_object(value)
    return value


def number(name, value) -> float:
    """`value` as a finite float, or a `TypeError`/`ValueError` that names the argument."""
    if isinstance(value, (bool, str)) or not hasattr(value, "__float__"):
        raise TypeError(f"`{name}` must be a number. Received: {name}={value!r}")
    value = float(value)
    if not math.isfinite(value):
        raise ValueError(f"`{name}` must be finite. Received: {name}={value!r}")
    return value


def positive(name, value) -> float:
    """`value` as a float above 0."""
    value = number(name, value)
    if value <= 0:
        raise ValueError(f"`{name}` must be greater than 0. Received: {name}={value!r}")
    return value


def not_negative(name, value) -> float:
    """`value` as a float of at least 0."""
    value = number(name, value)
    if value < 0:
        raise ValueError(f"`{name}` must be at least 0. Received: {name}={value!r}")
    return value


def fraction(name, value) -> float:
    """`value` as a float from 0 to 1."""
    value = number(name, value)
    if not 0 <= value <= 1:
        raise ValueError(f"`{name}` must be between 0 and 1. Received: {name}={value!r}")
    return value


def logits_of(outputs, temperature=None):
    """The logits behind `outputs`, where a softmax or sigmoid of Keras made them.

    Keras leaves the logits on the tensors that its softmax and sigmoid return, so nothing is lost
    where a probability rounds to 0 or 1. Several teachers' answers carry a function that gives
    the logits of their mean at a temperature. Other tensors are returned as they are.

    Args:
        outputs: A tensor.
        temperature: Of the loss that reads them, or `None` where it has none.
    """
    mean_at = getattr(outputs, "_mean_logits_at", None)
    if mean_at is not None and temperature is not None:
        return mean_at(temperature)
    return getattr(outputs, "_keras_logits", outputs)


class DistillationLoss(keras.losses.Loss):
    """Base class of the losses between what a teacher says and what a student says.

    Subclasses implement `call(y_true, y_pred)`, `y_true` from the teacher and `y_pred` from the
    student, and return one value per sample (or per sample and position, as Keras' own losses
    do). The class attributes say what else a loss needs.

    A loss with weights of its own (a variance to learn, projection heads, a memory) holds them in
    one layer, `state`. A `Distiller` builds it with `loss.build(...)`, trains it along with the
    student, and saves it in checkpoints; it isn't part of the student.

    Args:
        name: Name of the loss, under which `fit` reports it.
        reduction: As in `keras.losses.Loss`.
        dtype: Dtype or policy of the computation. Defaults to `keras.config.floatx()`.
    """

    #: `y_true` is `(teacher, labels)`; a `Distiller` hands the labels over.
    needs_labels = False
    #: `y_true` is `(teacher, keys)`, one integer per sample that names it in the whole data set.
    needs_keys = False
    #: Both sides are logits: where a model ends in softmax or sigmoid, its logits are recovered.
    takes_logits = False
    #: `call` takes `present`, shape `(batch,)`, bool: rows that may influence the others.
    between_samples = False
    #: Teacher's and student's tensors must have the same shape.
    same_shape = True
    #: `call` takes `mask`, bool, shape `(batch, ...)`, or `None`: positions that count, by the
    #: Keras mask of the student's features and by sample weights given per position.
    uses_mask = False
    #: A `keras.layers.Layer` with weights of the loss' own, which a `Distiller` builds through
    #: `build`, trains and saves.
    state = None

    def __call__(self, y_true, y_pred, sample_weight=None):
        mask = keras_mask(y_pred)
        if self.takes_logits:
            temperature = getattr(self, "temperature", None)
            y_true = keras.tree.map_structure(lambda x: logits_of(x, temperature), y_true)
            y_pred = keras.tree.map_structure(logits_of, y_pred)
        with keras.name_scope(self.name):
            y_pred = self._convert(y_pred)
            if self.needs_labels or self.needs_keys:
                teacher, given = y_true
                teacher = self._convert(teacher)
                y_true = (teacher, self._convert(given, keep_integers=True))
            else:
                y_true = teacher = self._convert(y_true)
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
            return _reduce(values, mask, sample_weight, self.reduction, self.dtype)

    def build(self, y_true_shape, y_pred_shape):
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
    def built(self, value):
        """Keras sets this behind `build_from_config`; what counts is the state."""

    def get_build_config(self):
        return getattr(self, "_build_config", None)

    def build_from_config(self, config):
        self.build(**config)

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
        """Raises a `ValueError` where broadcasting would make sense of what makes none."""
        shapes = tuple(teacher.shape), tuple(student.shape)
        if len(shapes[0]) != len(shapes[1]) or any(
            t != s and None not in (t, s) for t, s in zip(*shapes, strict=True)
        ):
            raise ValueError(
                f"`{type(self).__name__}` compares values of one shape. Received: teacher "
                f"(`y_true`) of shape {shapes[0]}, student (`y_pred`) of shape {shapes[1]}. An "
                'adapter makes features comparable: `Match(..., adapter="auto")`.'
            )

    def get_config(self):
        config = {**super().get_config(), "dtype": self.dtype}
        for name in hyperparameters(self):
            config[name] = hyperparameter_config(self, name)
        return config

    @classmethod
    def from_config(cls, config):
        return cls(**keras.saving.deserialize_keras_object(config))


def keras_mask(outputs):
    """The Keras mask of a tensor, or of the first tensor of a structure, or `None`."""
    for x in keras.tree.flatten(outputs):
        mask = getattr(x, "_keras_mask", None)
        if mask is not None:
            return mask
    return None


def present_rows(y_pred, mask, sample_weight):
    """Rows of weight above 0 that aren't masked from end to end. Shape `(batch,)`, bool."""
    present = ops.ones(ops.shape(keras.tree.flatten(y_pred)[0])[:1], dtype="bool")
    for x in (mask, sample_weight):
        if x is not None:
            x = ops.not_equal(ops.convert_to_tensor(x), 0)
            present = ops.logical_and(present, ops.any(x, axis=tuple(range(1, len(x.shape)))))
    return present


def counted_positions(y_pred, mask, sample_weight):
    """Positions that aren't masked and whose own weight isn't 0: bool, or `None` for all."""
    if sample_weight is not None:
        shape = keras.tree.flatten(y_pred)[0].shape
        weights = ops.convert_to_tensor(sample_weight)
        rank = len(weights.shape)
        if 1 < rank < len(shape) and tuple(weights.shape[1:]) == tuple(shape[1:rank]):
            weighed = ops.not_equal(weights, 0)
            if mask is None:
                return weighed
            if len(mask.shape) == rank:
                return ops.logical_and(mask, weighed)
    return mask


class _Values(keras.losses.Loss):
    """Hands values through to the weights, masks and reductions of `keras.losses.Loss`."""

    def call(self, y_true, y_pred):
        return y_pred


def _reduce(values, mask, sample_weight, reduction, dtype):
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
        values._keras_mask = ops.broadcast_to(mask, ops.shape(values))
    return _Values(reduction=reduction, dtype=dtype)(values, values, sample_weight)


def _to_rank(x, rank):
    """`x` with trailing axes added, or reduced away (mean; any for bool), until it has `rank`."""
    x = ops.convert_to_tensor(x)
    extra = tuple(range(rank, len(x.shape)))
    if extra:
        x = ops.any(x, axis=extra) if x.dtype == "bool" else ops.mean(x, axis=extra)
    return ops.reshape(x, (*ops.shape(x), *(1,) * (rank - len(x.shape))))
