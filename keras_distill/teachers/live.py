"""Teachers that are run as the student trains, and give their outputs as they are."""

from collections.abc import Iterable
from typing import Any

import keras

from keras_distill import _keras
from keras_distill import taps as tapping
from keras_distill.inputs import reads_of
from keras_distill.teachers.base import BaseTeacher, contents_of
from keras_distill.teachers.batches import Views
from keras_distill.teachers.reading import Reading


class LiveTeacher(BaseTeacher):
    """A teacher that is run on each batch. `Teacher` explains its outputs where they need it.

    Subclasses implement `run`.
    """

    #: The name by which stored answers recognize this kind of teacher, if not that of the class.
    kind: str = ""

    def run(self, inputs: Any, taps: Any) -> tuple:
        """Runs the teacher on its inputs: `(outputs, features)`, both as in `answer`."""
        raise NotImplementedError

    def answer(self, inputs: Any, taps: Any = ()) -> tuple:
        is_own = isinstance(inputs, Views)
        return self.run(inputs.teacher if is_own else self.student_inputs(inputs), taps)

    def own_contents(self) -> Iterable:
        """What makes this teacher what it is, beside its kind and the reading of its outputs."""
        return []

    def contents(self) -> Iterable:
        return self.contents_read_as(Reading())

    def contents_read_as(self, reading: tuple) -> Iterable:
        return [self.kind or type(self).__name__, *reading, *self.own_contents()]


class KerasTeacher(LiveTeacher):
    """A frozen Keras model that answers for each batch.

    The model is run with `training=False`. Its variables and its `trainable` flags stay as they
    are; it isn't saved with the student.

    Args:
        model: A built or unbuilt `keras.Model`.
    """

    kind = "Teacher"

    def __init__(self, model: keras.Model):
        self.model = model
        self.name = model.name
        self.output_names = getattr(model, "output_names", None)
        self.supports_jit = all(layer.supports_jit for layer in _keras.layers_of(model))

    @property
    def reads(self) -> Any:
        return reads_of(self.model)

    def run(self, inputs: Any, taps: Any) -> tuple:
        return tapping.run(self.model, taps, inputs, "teacher")

    def tap_path(self, tap: Any) -> str:
        return tapping.resolve(self.model, tap, "teacher")

    @property
    def variables(self) -> list:
        return self.model.variables

    def own_contents(self) -> Iterable:
        # Not the states of seeds, which differ from one construction to the next.
        return contents_of(self.model.weights)
