"""What is compared: Keras models, teachers and exported files, run on the same samples."""

import dataclasses
import math
import os

import keras
import numpy as np
import tensorflow as tf

from keras_distill.distiller import Distiller
from keras_distill.evaluation import samples
from keras_distill.evaluation.macs import multiply_accumulates
from keras_distill.match import Answer
from keras_distill.teachers import BaseTeacher


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a candidate costs.

    Attributes:
        parameters: Number of weights.
        multiply_accumulates: Of one inference, or `None` where they can't be counted.
        bytes: Size of the file; of the weights alone for what isn't exported.
        note: Why something is `None`.
    """

    parameters: int | None
    multiply_accumulates: int | None
    bytes: int | None
    note: str | None = None


def as_candidate(model, name):
    """Something with `outputs(x, batch_size)` and `cost(x)`.

    Args:
        model: A `keras.Model`, a `Distiller` (its student counts), one of
            `keras_distill.teachers`, an artefact of `keras_distill.tflite`, or the path of a
            `.keras` or `.tflite` file.
        name: Its name, for messages.

    Raises:
        TypeError: If it is none of these.
    """
    if isinstance(model, (str, os.PathLike)):
        model = _load(model)
    if isinstance(model, Distiller):
        return _Model(model, model.student)
    if isinstance(model, keras.Model):
        return _Model(model, model)
    if isinstance(model, BaseTeacher):
        return _Teacher(model)
    if hasattr(model, "tflite") and hasattr(model, "predict"):
        return _File(model)
    raise TypeError(
        f"The candidate {name!r} must be a Keras model, a teacher, an artefact of "
        "`keras_distill.tflite`, or the path of a .keras or .tflite file. "
        f"Received: {model!r} of type {type(model).__name__}"
    )


def _load(path):
    if str(path).endswith(".keras"):
        return keras.saving.load_model(path)
    from keras_distill import tflite

    return tflite.load(path)


class _Model:
    def __init__(self, model, counted):
        self.model = model
        self.counted = counted

    def outputs(self, x, batch_size):
        return self.model.predict(x, batch_size=batch_size, verbose=0)

    def cost(self, x):
        # Layers that only the samples build count as soon as `outputs` has run.
        return _cost(self.counted.weights, self.counted, x)


class _Teacher:
    def __init__(self, teacher):
        self.teacher = teacher

    def _answer(self, x):
        return self.teacher.combine(Answer(self.teacher.answer(x)[0], {})).outputs

    def outputs(self, x, batch_size):
        parts = [
            self._answer(samples.take(x, slice(start, start + batch_size)))
            for start in range(0, samples.count(x), batch_size)
        ]
        return keras.tree.map_structure(
            lambda *part: np.concatenate([keras.ops.convert_to_numpy(p) for p in part]), *parts
        )

    def cost(self, x):
        return _cost(self.teacher.variables, self._answer, x)


class _File:
    def __init__(self, artifact):
        self.artifact = artifact

    def outputs(self, x, batch_size):
        return self.artifact.predict(x)

    def cost(self, x):
        report = self.artifact.report
        return Cost(report["parameters"], report["multiply_accumulates"], len(self.artifact.tflite))


def _cost(variables, call, x):
    weights = [v for v in variables if v.name != "seed_generator_state"]
    parameters = sum(math.prod(v.shape) for v in weights)
    size = sum(math.prod(v.shape) * tf.as_dtype(v.dtype).size for v in weights)
    try:
        return Cost(parameters, multiply_accumulates(call, x), size)
    except ValueError as error:
        return Cost(parameters, None, size, str(error))
