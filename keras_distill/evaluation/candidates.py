"""What is compared: Keras models, teachers and exported files, run on the same samples."""

import dataclasses
import math
import os

import keras
import numpy as np
import tensorflow as tf

from keras_distill import samples
from keras_distill.distiller import Distiller
from keras_distill.evaluation.macs import Opaque, multiply_accumulates
from keras_distill.teachers import BaseTeacher


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a candidate costs.

    Attributes:
        parameters: Number of weights; `None` where Python code holds them.
        multiply_accumulates: Of one inference, or `None` where they can't be counted.
        bytes: Size of the file; of the weights alone for what isn't exported, `None` where Python
            code holds them.
        arena: Bytes of working memory that TFLite Micro needs; `None` elsewhere.
        note: Why something can't be told.
    """

    parameters: int | None
    multiply_accumulates: int | None
    bytes: int | None
    arena: int | None = None
    note: str | None = None


def as_candidate(model, name):
    """Something with `outputs(x, batch_size)`, `cost(x)` and `runtime`.

    Args:
        model: A `keras.Model`, a `Distiller` (its student counts), one of
            `keras_distill.teachers`, an artefact of `keras_distill.tflite`, or the path of a
            `.keras` or `.tflite` file.
        name: Its name, for messages.

    Raises:
        TypeError: If it is none of these.
        ValueError: If there is no such file, or it isn't what its name says.
    """
    if isinstance(model, (str, os.PathLike)):
        model = _load(model)
    if isinstance(model, keras.Model):
        return Model(model)
    if isinstance(model, BaseTeacher):
        return Teacher(model)
    if hasattr(model, "tflite") and hasattr(model, "predict"):
        return File(model)
    raise TypeError(
        f"The candidate {name!r} must be a Keras model, a teacher, an artefact of "
        "`keras_distill.tflite`, or the path of a .keras or .tflite file. "
        f"Received: {model!r} of type {type(model).__name__}"
    )


def _load(path):
    if str(path).endswith(".keras"):
        return keras.saving.load_model(path)
    if os.path.exists(os.path.join(path, "saved_model.pb")):
        raise ValueError(
            f"{path} is a SavedModel: give `keras_distill.teachers.SavedModel(path)`, which says "
            "what it reads and answers."
        )
    from keras_distill import tflite

    return tflite.load(path)


class Model:
    """A Keras model, or the student of a `Distiller`."""

    runtime = "keras"

    def __init__(self, model):
        self.model = model
        # A distiller knows which of the inputs its student reads.
        self.tracked = model.student if isinstance(model, Distiller) else model

    def call(self, x):
        return self.model(x, training=False)

    @property
    def variables(self):
        return self.tracked.variables

    def outputs(self, x, batch_size):
        return self.model.predict(x, batch_size=batch_size, verbose=0)

    def cost(self, x):
        return _cost(self.tracked.weights, self.call, x)


class Teacher:
    """One of `keras_distill.teachers`."""

    runtime = "keras"
    tracked = None

    def __init__(self, teacher):
        self.teacher = teacher

    def call(self, x):
        return self.teacher.combine(self.teacher.answer(x)[0])

    @property
    def variables(self):
        return self.teacher.variables

    def outputs(self, x, batch_size):
        parts = [
            keras.tree.map_structure(
                keras.ops.convert_to_numpy,
                self.call(samples.take(x, slice(start, start + batch_size))),
            )
            for start in range(0, samples.count(x), batch_size)
        ]
        return keras.tree.map_structure(lambda *part: np.concatenate(part), *parts)

    def cost(self, x):
        weights = [v for v in self.variables if v.name != "seed_generator_state"]
        return _cost(weights, self.call, x)


class File:
    """A TFLite file, run in its target's runtime on this host."""

    def __init__(self, artifact):
        from keras_distill.tflite import runtimes

        self.artifact = artifact
        self.runtime = runtimes.on_host(artifact.runtime)

    def outputs(self, x, batch_size):
        return self.artifact.predict(x)

    def cost(self, x):
        from keras_distill.tflite import runtimes

        report, tflite = self.artifact.report, self.artifact.tflite
        arena = runtimes.TFLiteMicro(tflite).arena["total"] if self.runtime == "micro" else None
        return Cost(report["parameters"], report["multiply_accumulates"], len(tflite), arena)


def _cost(weights, call, x):
    sizes = [(math.prod(v.shape), tf.as_dtype(v.dtype).size) for v in weights]
    macs, note = None, None
    try:
        macs = multiply_accumulates(call, x)
    except Opaque as error:
        return Cost(None, None, None, note=str(error))
    except ValueError as error:
        note = f"multiply-accumulates are not known. {error}"
    return Cost(sum(count for count, _ in sizes), macs, sum(math.prod(s) for s in sizes), note=note)
