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
            value = self._check(self.name, value)
            if isinstance(current, Bound):
                current.variable.assign(value)
            else:
                instance.__dict__[self.name] = value


class Bound:
    """The variable that a `Distiller` keeps for a hyperparameter, and its schedule if any."""

    def __init__(self, variable, schedule=None):
        self.variable = variable
        self.schedule = schedule


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


def logits_of(outputs):
    """The logits behind `outputs`, where a softmax or sigmoid of Keras made them.

    Keras leaves the logits on the tensors that its softmax and sigmoid return, so nothing is lost
    where a probability rounds to 0 or 1. Other tensors are returned as they are.
    """
    return getattr(outputs, "_keras_logits", outputs)


class DistillationLoss(keras.losses.Loss):
    """Base class of the losses between what a teacher says and what a student says.

    Subclasses implement `call(y_true, y_pred)`, `y_true` from the teacher and `y_pred` from the
    student, and return one value per sample (or per sample and position, as Keras' own losses
    do). The class attributes say what else a loss needs.

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
    #: A `keras.layers.Layer` with weights of the loss' own, which a `Distiller` builds through
    #: `build`, trains and saves.
    state = None
    #: `call` takes `mask`, the Keras mask of the student's features, or `None`.
    uses_mask = False

    def __call__(self, y_true, y_pred, sample_weight=None):
        mask = keras_mask(y_pred)
        if self.takes_logits:
            y_true = keras.tree.map_structure(logits_of, y_true)
            y_pred = keras.tree.map_structure(logits_of, y_pred)
        with keras.name_scope(self.name):
            y_pred = self._convert(y_pred)
            if self.needs_labels or self.needs_keys:
                y_true = tuple(self._convert(part) for part in y_true)
            else:
                y_true = self._convert(y_true)
            arguments = {}
            if self.uses_mask:
                arguments["mask"] = mask
            if self.between_samples:
                arguments["present"] = present_rows(y_pred, mask, sample_weight)
            values = self.call(y_true, y_pred, **arguments)
            return _reduce(values, mask, sample_weight, self.reduction, self.dtype)

    def build(self, y_true_shape, y_pred_shape):
        """Builds `state` for the given shapes, of tensors or of tuples of tensors.

        Losses with a `state` extend this. The shapes are saved with the loss, so that a loaded
        one is built without its teacher.
        """
        self._build_config = {"y_true_shape": y_true_shape, "y_pred_shape": y_pred_shape}

    @property
    def built(self) -> bool:
        """Whether there is no state left to build."""
        return self.state is None or self.state.built

    def get_build_config(self):
        return getattr(self, "_build_config", None)

    def build_from_config(self, config):
        self.build(**config)

    def _convert(self, x):
        """Tensors with floats in the loss' dtype; integers (labels, keys) stay exact."""
        leaves = keras.tree.flatten(x) if isinstance(x, (list, tuple, dict)) else []
        if any(hasattr(leaf, "shape") for leaf in leaves):
            return keras.tree.map_structure(self._convert, x)
        x = ops.convert_to_tensor(x)
        return ops.cast(x, self.dtype) if keras.backend.is_float_dtype(x.dtype) else x

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


class _Values(keras.losses.Loss):
    """Hands values through to the weights, masks and reductions of `keras.losses.Loss`."""

    def call(self, y_true, y_pred):
        return y_pred


def _reduce(values, mask, sample_weight, reduction, dtype):
    """Reduces values as Keras does, with weights and mask brought to the values' rank first.

    Keras multiplies values of shape `(batch, steps)` by weights of shape `(batch,)` along the
    wrong axis. Here weights of lower rank hold for all positions of their row; weights and masks
    of higher rank count by their mean over the positions that a value sums up.
    """
    rank = len(values.shape)
    if sample_weight is not None and rank:
        sample_weight = _to_rank(ops.cast(sample_weight, dtype), rank)
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
