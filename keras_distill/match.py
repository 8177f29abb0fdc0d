"""Where in the two models to look, how to compare, and how to make the two comparable."""

from typing import NamedTuple

import keras

from keras_distill import taps as tapping
from keras_distill._types import PACKAGE
from keras_distill.checks import not_negative
from keras_distill.hyperparameters import Hyperparameter, hyperparameter_config
from keras_distill.losses.base import DistillationLoss


@keras.saving.register_keras_serializable(PACKAGE)
class Match:
    """Compares a place in the student with a place in the teacher.

    Args:
        loss: A `keras.losses.Loss` of `(teacher, student)`, or a function of the two that returns
            one value per sample (or a scalar).
        student: Where to look in the student: the path of a layer (`"backbone/block3"`), the
            layer itself, the name or index of an output, or a tuple of these, which gives the
            loss a tuple of tensors. Defaults to `None`: the outputs.
        teacher: Where to look in the teacher, likewise. Defaults to `None`: the same as `student`.
        adapter: Layer that turns the student's features into the teacher's shape, trained along
            and never exported. `"auto"` builds it from the shapes. Defaults to `None`.
        weight: Weight of the loss, at least 0: a number, or a `keras.optimizers.schedules`
            schedule. Defaults to `1.0`.
        name: Name under which `fit` reports the loss. Defaults to the loss' own. Where another
            loss has it, the place or a number is put behind it.

    Raises:
        TypeError: If `loss` is neither a loss nor a function, or `adapter` isn't a layer.
        ValueError: If `weight` is negative.

    Example:

    >>> keras_distill.Match(
    ...     keras_distill.losses.Hint(), student="block2", teacher="stage3", adapter="auto"
    ... )
    """

    weight = Hyperparameter(not_negative)

    def __init__(self, loss, student=None, teacher=None, adapter=None, weight=1.0, name=None):
        self.loss = as_loss(loss)
        self.student = student
        self.teacher = student if teacher is None else teacher
        self.adapter = tuple(adapter) if isinstance(adapter, list) else adapter
        if adapter != "auto" and not all(
            layer is None or isinstance(layer, keras.layers.Layer)
            for layer in _as_tuple(self.adapter)
        ):
            raise TypeError(
                '`adapter` must be "auto", a layer, None, or a tuple of layers and None with one '
                f"for each tap. Received: adapter={adapter!r}"
            )
        self.weight = weight
        self.name = name or self.loss.name

    @property
    def layers(self) -> list:
        """The layers with weights that come with it: adapters given, and the loss' state."""
        given = [x for x in _as_tuple(self.adapter) if isinstance(x, keras.layers.Layer)]
        return [*given, *([self.loss.state] if self.loss.state is not None else [])]

    def __repr__(self):
        return f"<Match {self.name}: student={self.student!r}, teacher={self.teacher!r}>"

    def get_config(self):
        return {
            "loss": keras.saving.serialize_keras_object(self.loss),
            "student": self.student,
            "teacher": self.teacher,
            "adapter": keras.saving.serialize_keras_object(self.adapter),
            "weight": hyperparameter_config(self, "weight"),
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config):
        return cls(**keras.saving.deserialize_keras_object(config))


def as_loss(loss) -> DistillationLoss:
    """`loss` as a `DistillationLoss`."""
    if isinstance(loss, DistillationLoss):
        return loss
    if isinstance(loss, str) or not callable(loss):
        raise TypeError(
            "A distillation loss must be a `keras.losses.Loss` or a function of the teacher's and "
            "the student's tensors, such as `keras_distill.losses.SoftTargets()` or "
            f"`keras.losses.MeanSquaredError()`. Received: {loss!r}"
        )
    return KerasLoss(loss)


@keras.saving.register_keras_serializable(PACKAGE)
class KerasLoss(DistillationLoss):
    """A loss of Keras, or a plain function, between teacher and student.

    Args:
        loss: A `keras.losses.Loss`, or a function of the teacher's and the student's tensors.
        name: Name of the loss. Defaults to the name of `loss`.
        reduction: As in `keras.losses.Loss`. Defaults to that of `loss`.
        dtype: Dtype or policy of the computation. Defaults to `keras.config.floatx()`.
    """

    def __init__(self, loss, name=None, reduction=None, dtype=None):
        self.loss = loss
        super().__init__(
            name=name or getattr(loss, "name", None) or _name_of(loss),
            reduction=reduction or getattr(loss, "reduction", "sum_over_batch_size"),
            dtype=dtype or getattr(loss, "dtype", None),
        )
        # Nothing is known of what a function compares.
        self.same_shape = isinstance(loss, keras.losses.Loss)

    def call(self, y_true, y_pred):
        function = self.loss.call if isinstance(self.loss, keras.losses.Loss) else self.loss
        return function(y_true, y_pred)

    def get_config(self):
        return {**super().get_config(), "loss": keras.saving.serialize_keras_object(self.loss)}


class Tap(NamedTuple):
    """One place in a model: the layer at `path`, or the output at `output` (`None`: the only)."""

    path: str | None = None
    output: int | str | None = None

    def __str__(self):
        if self.path is not None:
            return f"layer {self.path!r}"
        return "output" if self.output is None else f"output {self.output!r}"


class Answer(NamedTuple):
    """What a model said for a batch: its outputs, and the features tapped, by layer path."""

    outputs: object
    features: dict

    def at(self, tap):
        """The tensor at a `Tap`, or a tuple of tensors at a tuple of taps."""
        if not isinstance(tap, Tap):
            return tuple(self.at(part) for part in tap)
        if tap.path is not None:
            return self.features[tap.path]
        return self.outputs if tap.output is None else self.outputs[tap.output]


class ModelTaps:
    """Resolves what users write for a place in a model into `Tap`s.

    Args:
        path_of: Function from the path of a layer, or a layer, to the path of a layer that exists.
        outputs: The structure of the model's outputs.
        output_names: Names of the model's outputs, in order, or `None`.
    """

    def __init__(self, path_of, outputs, output_names):
        self.path_of = path_of
        self.outputs = outputs
        self.output_names = output_names

    def resolve(self, place):
        """The `Tap` of a place, or a tuple of them."""
        if isinstance(place, (tuple, list)):
            return tuple(self.resolve(part) for part in place)
        if place is None:
            return Tap()
        if isinstance(place, int):
            return Tap(output=place if keras.tree.is_nested(self.outputs) else None)
        if isinstance(place, str):
            if isinstance(self.outputs, dict) and place in self.outputs:
                return Tap(output=place)
            if isinstance(self.outputs, (list, tuple)) and place in (self.output_names or ()):
                return Tap(output=self.output_names.index(place))
        return Tap(path=self.path_of(place))


def paths(taps) -> list[str]:
    """The layer paths among taps, each once."""
    flat = [part for tap in taps for part in ([tap] if isinstance(tap, Tap) else tap)]
    return list(dict.fromkeys(tap.path for tap in flat if tap.path is not None))


class Pair:
    """A `Match` tied to its two models: taps resolved, adapters built.

    Args:
        match: The `Match`.
        name: Name that no other pair of the distiller has.
        student: `Tap`, or tuple of taps, in the student.
        teacher: `Tap`, or tuple of taps, in the teacher.
    """

    def __init__(self, match, name, student, teacher):
        self.match = match
        self.loss = match.loss
        self.name = name
        self.student = student
        self.teacher = teacher
        self.adapters = _as_tuple(match.adapter)

    def build(self, student, teacher, dtype):
        """Builds adapters and the loss' state, and checks that the two sides fit.

        Args:
            student: `Answer` of `keras.KerasTensor`s.
            teacher: Likewise.
            dtype: Dtype policy of adapters.

        Raises:
            ValueError: If the two sides can't be compared. Says both shapes and the mend.
        """
        ours = _as_tuple(_specs_at(student, self.student, "student"))
        theirs = _as_tuple(_specs_at(teacher, self.teacher, "teacher"))
        if self.match.adapter == "auto":
            if self.adapters == ("auto",):
                self.adapters = tuple(
                    self._auto_adapter(s, t, dtype) for s, t in zip(ours, theirs, strict=True)
                )
        elif len(self.adapters) not in (1, len(ours)):
            raise ValueError(
                f"{self.match!r} taps {len(ours)} places but has {len(self.adapters)} adapters."
            )
        ours = tuple(
            spec if adapter is None else tapping.spec_of(adapter, spec)
            for spec, adapter in zip(ours, self._adapters_for(ours), strict=True)
        )
        if self.loss.same_shape:
            for s, t in zip(ours, theirs, strict=True):
                if not _fit(s.shape, t.shape):
                    raise ValueError(self._mismatch(s.shape, t.shape))
        if not self.loss.built:
            shapes = [x.shape for x in theirs], [x.shape for x in ours]
            if len(ours) == 1:
                shapes = shapes[0][0], shapes[1][0]
            self.loss.build(*shapes)

    def __call__(self, student, teacher, labels, keys, sample_weight):
        """The reduced loss of a batch, unweighted."""
        y_pred = student.at(self.student)
        parts = _as_tuple(y_pred)
        parts = tuple(
            x if adapter is None else adapter(x, training=True)
            for x, adapter in zip(parts, self._adapters_for(parts), strict=True)
        )
        y_pred = parts if isinstance(y_pred, tuple) else parts[0]
        y_true = teacher.at(self.teacher)
        if self.loss.needs_labels:
            y_true = (y_true, labels)
        elif self.loss.needs_keys:
            y_true = (y_true, keys)
        return self.loss(y_true, y_pred, sample_weight)

    def config(self) -> dict:
        """The serialized `Match`, with the adapters as they were built."""
        match = self.match.get_config()
        adapters = self.adapters if len(self.adapters) > 1 else self.adapters[0]
        match["adapter"] = keras.saving.serialize_keras_object(adapters)
        for role, taps in (("student", self.student), ("teacher", self.teacher)):
            match[role] = _place(taps)
        config = keras.saving.serialize_keras_object(self.match)
        return {**config, "config": match}

    def _adapters_for(self, parts):
        return self.adapters * len(parts) if len(self.adapters) == 1 else self.adapters

    def _auto_adapter(self, student, teacher, dtype):
        if not self.loss.same_shape or _fit(student.shape, teacher.shape):
            return None
        layers = _adapting_layers(student.shape, teacher.shape, dtype)
        if layers is None:
            raise ValueError(
                self._mismatch(student.shape, teacher.shape)
                + ' `adapter="auto"` can change channels (1×1 convolution, dense), pool or resize '
                "maps, and pool maps or sequences into vectors; these shapes need an adapter of "
                "your own."
            )
        adapter = keras.Sequential(layers, name=f"{self.name}_adapter".replace("/", "_"))
        # A mask holds on, unless positions are merged or repeated.
        adapter.supports_masking = not (
            len(student.shape) == len(teacher.shape) == 3 and student.shape[1] != teacher.shape[1]
        )
        return adapter

    def _mismatch(self, student, teacher):
        is_output = isinstance(self.student, Tap) and self.student.path is None
        mend = (
            "For outputs the two must agree, up to the batch. Where the teacher knows more "
            "classes, choose among them: `keras_distill.teachers.Teacher(model, class_map=[...])`"
            if is_output
            else 'Give the `Match` adapter="auto", or a layer that turns the one into the other'
        )
        return (
            f"{self.name}: the student's {self.student} has shape {student} but the teacher's "
            f"{self.teacher} has shape {teacher}. {mend}."
        )


def _name_of(function):
    """The name of a function, or of the class of another thing that can be called."""
    return getattr(function, "__name__", type(function).__name__).strip("<>")


def _as_tuple(x):
    return x if isinstance(x, tuple) else (x,)


def _place(taps):
    """What a user would write for taps. The only output is 0: `None` stands for all outputs."""
    if not isinstance(taps, Tap):
        return [_place(tap) for tap in taps]
    if taps.path is not None:
        return taps.path
    return 0 if taps.output is None else taps.output


def _specs_at(answer, taps, role):
    try:
        specs = answer.at(taps)
    except (KeyError, IndexError, TypeError) as error:
        outputs = keras.tree.map_structure(lambda x: x.shape, answer.outputs)
        raise ValueError(f"The {role} has no {taps}. Its outputs have shape {outputs}.") from error
    for spec in keras.tree.flatten(specs):
        if not isinstance(spec, keras.KerasTensor):
            raise ValueError(f"The {role}'s {taps} is not a tensor but {type(spec).__name__}.")
    if isinstance(taps, Tap) and keras.tree.is_nested(specs):
        raise ValueError(f"The {role}'s {taps} holds several tensors: name one of them.")
    return specs


def _fit(a, b) -> bool:
    """Whether two shapes agree behind the batch, unknown sizes fitting anything."""
    return len(a) == len(b) and all(
        x == y or x is None or y is None for x, y in zip(a[1:], b[1:], strict=True)
    )


def _adapting_layers(student, teacher, dtype):
    """Layers that turn features of shape `student` into shape `teacher`, or `None`."""
    ranks = len(student), len(teacher)
    channels = teacher[-1]
    pools = {
        (4, 2): keras.layers.GlobalAveragePooling2D,
        (3, 2): keras.layers.GlobalAveragePooling1D,
    }
    if ranks in pools:
        pool = [pools[ranks](dtype=dtype)]
        return pool if student[-1] == channels else [*pool, _dense(channels, dtype)]
    if ranks == (2, 2):
        return [_dense(channels, dtype)]
    if ranks not in ((3, 3), (4, 4)):
        return None
    resize = _resizing_layers(student[1:-1], teacher[1:-1], dtype)
    if resize is None:
        return None
    if student[-1] == channels:
        return resize
    project = (
        _dense(channels, dtype)
        if ranks == (3, 3)
        else keras.layers.Conv2D(channels, 1, dtype=dtype, name="project")
    )
    shrinks = bool(resize) and student[1] > teacher[1]
    return [*resize, project] if shrinks else [project, *resize]


def _dense(units, dtype):
    return keras.layers.Dense(units, dtype=dtype, name="project")


def _resizing_layers(student, teacher, dtype):
    """Layers that bring the positions of a map or sequence to another size, or `None`."""
    if student == teacher:
        return []
    if None in student or None in teacher:
        return None
    rank = len(student)
    if all(s % t == 0 for s, t in zip(student, teacher, strict=True)):
        factors = tuple(s // t for s, t in zip(student, teacher, strict=True))
        pool = keras.layers.AveragePooling1D if rank == 1 else keras.layers.AveragePooling2D
        return [pool(factors[0] if rank == 1 else factors, dtype=dtype, name="pool")]
    if rank == 2:
        return [keras.layers.Resizing(*teacher, dtype=dtype, name="resize")]
    if teacher[0] % student[0] == 0:
        return [keras.layers.UpSampling1D(teacher[0] // student[0], dtype=dtype, name="repeat")]
    return None
