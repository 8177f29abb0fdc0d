"""Teachers that are run as the student trains."""

import keras
from keras import ops

from keras_distill import taps as tapping
from keras_distill.teachers.base import (
    BaseTeacher,
    Misfit,
    check_names,
    contents_of,
    map_outputs,
    said_of,
)
from keras_distill.teachers.batches import Views


class LiveTeacher(BaseTeacher):
    """A teacher that is run on each batch: its inputs are prepared, its outputs made readable.

    Subclasses implement `run(inputs, taps) -> (outputs, features)`.

    Args:
        name: Name for messages and reports.
        preprocess: See `Teacher`.
        from_logits: See `Teacher`.
        activation: See `Teacher`.
        class_map: See `Teacher`.
    """

    def __init__(
        self, name, preprocess=None, from_logits=True, activation="softmax", class_map=None
    ):
        if preprocess is not None and not callable(preprocess):
            raise TypeError(
                f"`preprocess` must be a function of the batch's `x`. Received: {preprocess!r}"
            )
        self.name = name
        self.preprocess = preprocess
        self.from_logits = from_logits
        self.activation = checked_activation(activation)
        self.class_map = (
            {key: _classes(classes) for key, classes in class_map.items()}
            if isinstance(class_map, dict)
            else _classes(class_map)
        )

    def run(self, inputs, taps):
        """Runs the teacher on inputs of its own kind."""
        raise NotImplementedError

    def answer(self, inputs, taps=()):
        is_own = isinstance(inputs, Views)
        inputs = inputs.teacher if is_own else self.student_inputs(inputs)
        if self.preprocess is not None:
            inputs = self.preprocess(inputs)
        outputs, features = self.run(inputs, taps)
        return self.readable(outputs), features

    def contents(self):
        return [*super().contents(), self.from_logits, self.activation, self.class_map]

    def readable(self, outputs):
        """Outputs as `run` gives them, with their logits behind them, for the student's classes.

        Raises:
            ValueError: If an option names an output that isn't there.
        """
        names = []
        map_outputs(lambda output, name: names.append(name), outputs, self.output_names)
        for option in ("from_logits", "activation", "class_map"):
            check_names(option, getattr(self, option), names)
        return map_outputs(self._readable, outputs, self.output_names)

    def _readable(self, output, name):
        """An output with its logits behind it, for the student's classes alone."""
        output = ops.convert_to_tensor(output)
        logits = getattr(output, "_keras_logits", None)
        sigmoid = (
            is_sigmoid_of(output, logits)
            if logits is not None
            else said_of(self.activation, name, "softmax") == "sigmoid" or output.shape[-1] == 1
        )
        if logits is None and not said_of(self.from_logits, name, True):
            logits = logits_of_probabilities(output, sigmoid)
            output._keras_logits = logits
        classes = said_of(self.class_map, name, None)
        if classes is not None:
            output = self._chosen(output, logits, sigmoid, classes, name)
        output._is_sigmoid = sigmoid
        return output

    def _chosen(self, output, logits, sigmoid, classes, name):
        if max(classes) >= output.shape[-1]:
            raise Misfit(
                f"`class_map` of the teacher {self.name!r} names class {max(classes)}, but its "
                f"output{'' if name is None else f' {name!r}'} has shape {tuple(output.shape)}."
            )
        if logits is None:
            return ops.take(output, classes, axis=-1)
        # What softmax makes of the chosen logits are the chosen probabilities, renormalized.
        return probabilities_of(ops.take(logits, classes, axis=-1), sigmoid)


class Teacher(LiveTeacher):
    """A frozen Keras model that answers for each batch.

    The model is run with `training=False`. Its variables and its `trainable` flags stay as they
    are; it isn't saved with the student.

    Args:
        model: A built or unbuilt `keras.Model`.
        preprocess: Function from the batch's `x` to the model's inputs: another resolution,
            dtype or normalization, or another element of a dict. Defaults to `None`: the model
            reads what the student reads.
        from_logits: `False` if the model answers with probabilities that no softmax or sigmoid
            of Keras makes; those of Keras are recognized without being told. Of a model with
            several outputs, a dict by output name.
        activation: What turns the teacher's logits into probabilities, `"softmax"` (one class of
            several) or `"sigmoid"` (each unit for itself). It matters with `from_logits=False`
            and in an `Ensemble`. A softmax or sigmoid of Keras is recognized without being told,
            and a single unit is always `"sigmoid"`. Or a dict by output name.
        class_map: Of a teacher that knows more classes than the student, or the same in another
            order: the teacher's class for each class of the student. The probabilities of the
            chosen classes are renormalized. Or a dict by output name.

    Raises:
        TypeError: If `model` isn't a Keras model, or `class_map` doesn't hold integers.
        ValueError: If `class_map` names a class twice, or one that the teacher doesn't know.

    Example:

    >>> teacher = keras_distill.teachers.Teacher(
    ...     model,
    ...     preprocess=lambda x: keras.ops.image.resize(x, (64, 64)),
    ...     class_map=[3, 5, 7],
    ... )
    """

    def __init__(
        self, model, preprocess=None, from_logits=True, activation="softmax", class_map=None
    ):
        if not isinstance(model, keras.Model):
            raise TypeError(
                "`teacher` must be a `keras.Model` or one of `keras_distill.teachers`. "
                f"Received: teacher={model!r} of type {type(model).__name__}"
            )
        super().__init__(model.name, preprocess, from_logits, activation, class_map)
        self.model = model
        self.output_names = getattr(model, "output_names", None)
        self.supports_jit = all(layer.supports_jit for layer in model._flatten_layers())

    def run(self, inputs, taps):
        return tapping.run(self.model, taps, inputs, "teacher")

    def tap_path(self, tap) -> str:
        return tapping.resolve(self.model, tap, "teacher")

    @property
    def variables(self):
        return self.model.variables

    def contents(self):
        # Not the states of seeds, which differ from one construction to the next.
        return [*super().contents(), *contents_of(self.model.weights)]


def is_sigmoid_of(output, logits):
    """Whether it was sigmoid, not softmax, that made `output` from `logits`."""
    if hasattr(output, "numpy"):
        return bool(ops.all(ops.abs(output - ops.sigmoid(logits)) < 1e-3))
    return output.op.type == "Sigmoid"


def logits_of_probabilities(probabilities, sigmoid):
    """Logits that give `probabilities`: exact, up to a constant in each row of a softmax.

    Args:
        probabilities: Floats from 0 to 1, shape `(batch, ..., classes)`.
        sigmoid: Whether each is a probability of its own.

    Returns:
        Logits, float32, of the same shape.
    """
    probabilities = ops.cast(probabilities, "float32")
    # The smallest normal float stands for 0.
    log_p = ops.log(ops.maximum(probabilities, 1.2e-38))
    if not sigmoid:
        return log_p
    # Below 1, floats are 2⁻²⁴ apart: what rounds to 1 is nearer than half of that.
    return log_p - ops.log(ops.maximum(1 - probabilities, 2.0**-25))


def probabilities_of(logits, sigmoid):
    """Probabilities, with their logits behind them as Keras leaves them."""
    activation = keras.activations.sigmoid if sigmoid else keras.activations.softmax
    return activation(logits)


def checked_activation(activation):
    """An `activation`, or a dict of them, checked."""
    for value in activation.values() if isinstance(activation, dict) else [activation]:
        if value not in ("softmax", "sigmoid"):
            raise ValueError(
                f'`activation` must be "softmax" or "sigmoid". Received: activation={activation!r}'
            )
    return activation


def _classes(class_map):
    """A `class_map` of one output, checked."""
    if class_map is None:
        return None
    try:
        classes = [int(c) for c in class_map]
        if not classes or any(c != given for c, given in zip(classes, class_map, strict=True)):
            raise TypeError
    except (TypeError, ValueError):
        raise TypeError(
            "`class_map` must hold the teacher's class, an integer, for each class of the "
            f"student. Received: class_map={class_map!r}"
        ) from None
    if min(classes) < 0 or len(set(classes)) < len(classes):
        raise ValueError(
            "`class_map` must name each class of the teacher at most once, counting from 0. "
            f"Received: class_map={class_map!r}"
        )
    return classes
