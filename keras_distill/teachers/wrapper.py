"""`Teacher`: options that hold for teachers of every kind, for their inputs and outputs."""

from collections.abc import Callable, Iterable
from typing import Any

import keras

from keras_distill import taps as tapping
from keras_distill._types import Tensors
from keras_distill.outputs import values_of
from keras_distill.teachers.base import BaseTeacher
from keras_distill.teachers.batches import Answered, Keyed, Views
from keras_distill.teachers.conversion import as_teacher
from keras_distill.teachers.reading import Reading


class Teacher(BaseTeacher):
    """A teacher that reads other inputs than the student, or whose outputs need explaining.

    It wraps anything that a `Distiller` takes as a teacher. What it wraps is run in inference
    mode, and isn't changed or saved with the student.

    Args:
        teacher: A `keras.Model`, one of `keras_distill.teachers`, a function of a batch of
            tensors, or a path: of a `.keras`, `.h5` or `.tflite` file, of a SavedModel, or of a
            folder that `store` wrote.
        preprocess: Function from the batch's `x` to the teacher's inputs: another resolution,
            dtype or normalization, or another element of a dict. Defaults to `None`: the teacher
            reads what the student reads.
        from_logits: `False` if the outputs are probabilities that no softmax or sigmoid of Keras
            makes; those of Keras are recognized by themselves. Of a teacher with several outputs,
            a dict by output name.
        activation: What turns the teacher's logits into probabilities, `"softmax"` (one class of
            several) or `"sigmoid"` (each unit by itself). It matters with `from_logits=False` and
            in an `Ensemble`. A softmax or sigmoid of Keras is recognized by itself, and a single
            unit is always `"sigmoid"`. Or a dict by output name.
        class_map: Of a teacher that knows more classes than the student, or the same in another
            order: the teacher's class for each class of the student. The probabilities of the
            chosen classes are renormalized. Or a dict by output name.

    Raises:
        TypeError: If `teacher` can't be a teacher, `preprocess` isn't a function, or `class_map`
            doesn't hold integers.
        ValueError: If `class_map` names a class twice, or one that the teacher doesn't know; or
            if a file's outputs are found to be probabilities although `from_logits` is true.

    Example:

    >>> teacher = keras_distill.teachers.Teacher(
    ...     model,
    ...     preprocess=lambda x: keras.ops.image.resize(x, (64, 64)),
    ...     class_map=[3, 5, 7],
    ... )
    """

    def __init__(
        self,
        teacher: Any,
        preprocess: Callable | None = None,
        from_logits: bool | dict = True,
        activation: str | dict = "softmax",
        class_map: Any = None,
    ):
        if preprocess is not None and not callable(preprocess):
            raise TypeError(
                f"`preprocess` must be a function of the batch's `x`. Received: {preprocess!r}"
            )
        self.reading = Reading.checked(from_logits, activation, class_map)
        self.teacher = as_teacher(teacher, from_logits)
        self.preprocess = preprocess
        self.name = self.teacher.name
        self.output_names = self.teacher.output_names
        self.supports_jit = self.teacher.supports_jit
        self.figure_names = self.teacher.figure_names

    @property
    def reads(self) -> Any:
        return None if self.preprocess is not None else self.teacher.reads

    @property
    def state(self) -> keras.layers.Layer | None:
        """The layer of the wrapped teacher that is trained along, or `None`."""
        return self.teacher.state

    @state.setter
    def state(self, layer: keras.layers.Layer | None) -> None:
        self.teacher.state = layer

    @property
    def variables(self) -> list:
        return self.teacher.variables

    def answer(self, inputs: Any, taps: Any = ()) -> tuple:
        outputs, features = self.teacher.answer(self._prepared(inputs), taps)
        return (self._read(outputs) if self._is_final else outputs), features

    def combine(self, outputs: Any) -> Any:
        return outputs if self._is_final else self._read(self.teacher.combine(outputs))

    def complete(self, outputs: Any, student_outputs: Any) -> Any:
        if self._is_final:
            return outputs
        return self._read(self.teacher.complete(outputs, student_outputs))

    def figures(self, outputs: Any) -> dict:
        return self.teacher.figures(outputs)

    def answer_spec(self, inputs: Any, taps: Any = ()) -> tuple:
        if not _overrides(self.teacher, "answer_spec"):
            return super().answer_spec(inputs, taps)
        if self.preprocess is not None:
            inputs = tapping.spec_of(self._prepared, inputs)
        outputs, features = self.teacher.answer_spec(inputs, taps)
        return tapping.spec_of(lambda x: values_of(self._read(x)), outputs), features

    def student_inputs(self, inputs: Any) -> Tensors:
        return self.teacher.student_inputs(inputs)

    def keys(self, inputs: Any) -> Any:
        return self.teacher.keys(inputs)

    def tap_path(self, tap: Any) -> str:
        return self.teacher.tap_path(tap)

    def attach(self, *args: Any, **kwargs: Any) -> Any:
        """As `attach` of the wrapped teacher, which is `Arrays` or `Stored`."""
        wrapped: Any = self.teacher
        return wrapped.attach(*args, **kwargs)

    def contents(self) -> Iterable:
        return self.teacher.contents_read_as(self.reading)

    @property
    def _is_final(self) -> bool:
        """Whether the wrapped teacher's `answer` gives its outputs in their final form."""
        return not (_overrides(self.teacher, "combine") or _overrides(self.teacher, "complete"))

    def _prepared(self, inputs):
        """A batch's `x` with the teacher's inputs in place of the student's."""
        if self.preprocess is None:
            return inputs
        if isinstance(inputs, Views):
            return inputs._replace(teacher=self.preprocess(inputs.teacher))
        if isinstance(inputs, (Keyed, Answered)):
            return inputs._replace(inputs=self.preprocess(inputs.inputs))
        return self.preprocess(self.teacher.student_inputs(inputs))

    def _read(self, outputs):
        return self.reading.of(outputs, self.output_names, self.name)


def _overrides(teacher, method):
    """Whether a teacher has a method of its own in place of the default."""
    return getattr(type(teacher), method) is not getattr(BaseTeacher, method)
