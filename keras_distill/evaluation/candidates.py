"""What is compared: Keras models, teachers and exported files, run on the same samples."""

import dataclasses
import math
import os
import pathlib
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from keras_distill import inputs, samples
from keras_distill.distiller import Distiller
from keras_distill.evaluation.macs import Opaque, multiply_accumulates
from keras_distill.mutual import MutualDistiller
from keras_distill.outputs import values_of
from keras_distill.teachers import BaseTeacher
from keras_distill.teachers.conversion import KERAS_SUFFIXES, load_model


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a candidate costs.

    Attributes:
        parameters: Number of weights; `None` if Python code holds them.
        multiply_accumulates: Of one inference; `None` if they can't be counted.
        bytes: Size of the file, or of the weights of what isn't exported; `None` if Python code
            holds them.
        zipped: Bytes of the file in a zip or in an app's download; `None` of what isn't exported.
        arena: Bytes of working memory that TFLite Micro needs; `None` for other runtimes.
        note: Why something is unknown.
    """

    parameters: int | None
    multiply_accumulates: int | None
    bytes: int | None
    zipped: int | None = None
    arena: int | None = None
    note: str | None = None


class Candidate(Protocol):
    """One of the models and files that are compared.

    Attributes:
        runtime: `"keras"`, or the runtime of a file.
    """

    runtime: str

    def outputs(self, x: Any, batch_size: int) -> Any:
        """The outputs for samples `x`, each of shape `(samples, ...)`."""

    def cost(self, x: Any) -> Cost:
        """What one inference on samples like `x` costs."""


def as_candidate(model: Any, name: str) -> Candidate:
    """The candidate for a model or a file.

    Args:
        model: A `keras.Model`, a `Distiller` (its student is compared), one of
            `keras_distill.teachers`, an artifact of `keras_distill.tflite`, or the path of a
            `.keras`, `.h5` or `.tflite` file.
        name: Its name, for messages.

    Raises:
        TypeError: If it is none of these.
        ValueError: If there is no such file, its content doesn't match its name, or it holds
            several students.
    """
    if isinstance(model, (str, os.PathLike)):
        model = _load(model)
    if isinstance(model, MutualDistiller):
        raise ValueError(
            f"The candidate {name!r} is a `MutualDistiller` of several students "
            f"({', '.join(model.output_names)}): compare its `.students`, each under its name."
        )
    if isinstance(model, keras.Model):
        return Model(model)
    if isinstance(model, BaseTeacher):
        return Teacher(model)
    if hasattr(model, "tflite") and hasattr(model, "runtime"):
        return File(model)
    raise TypeError(
        f"The candidate {name!r} must be a Keras model, a teacher, an artifact of "
        "`keras_distill.tflite`, or the path of a .keras, .h5 or .tflite file. "
        f"Received: {model!r} of type {type(model).__name__}"
    )


def _load(path: Any) -> Any:
    if pathlib.Path(path).suffix in KERAS_SUFFIXES:
        return load_model(pathlib.Path(path))
    if os.path.exists(os.path.join(path, "saved_model.pb")):
        raise ValueError(
            f"{path} is a SavedModel: give `keras_distill.teachers.SavedModel(path)` instead, "
            "which knows its inputs and outputs."
        )
    from keras_distill import tflite

    return tflite.load(path)


class Model:
    """A Keras model, or the student of a `Distiller`."""

    runtime = "keras"

    def __init__(self, model: keras.Model):
        self.model = model
        self.tracked = model.student if isinstance(model, Distiller) else model

    def call(self, x: Any) -> Any:
        return self.model(self._entries(x), training=False)

    @property
    def variables(self) -> list:
        return self.tracked.variables

    def outputs(self, x: Any, batch_size: int) -> Any:
        student = self.tracked
        inputs.check_shapes(inputs.reads_of(student), inputs.entries_for(student, x, "candidate"))
        return self.model.predict(self._entries(x), batch_size=batch_size, verbose=0)

    def _entries(self, x: Any) -> Any:
        if isinstance(self.model, Distiller):  # It knows which of the inputs its student reads.
            return x
        return inputs.entries_for(self.model, x, "candidate")

    def cost(self, x: Any) -> Cost:
        return _cost(self.tracked.weights, self.call, x)


class Teacher:
    """One of `keras_distill.teachers`."""

    runtime = "keras"
    tracked = None

    def __init__(self, teacher: BaseTeacher):
        self.teacher = teacher

    def call(self, x: Any) -> Any:
        return values_of(self.teacher.combine(self.teacher.answer(x)[0]))

    @property
    def variables(self) -> list:
        return self.teacher.variables

    def outputs(self, x: Any, batch_size: int) -> Any:
        inputs.check_shapes(self.teacher.reads, x)
        parts = [
            keras.tree.map_structure(
                keras.ops.convert_to_numpy,
                self.call(samples.take(x, slice(start, start + batch_size))),
            )
            for start in range(0, samples.count(x), batch_size)
        ]
        return keras.tree.map_structure(lambda *part: np.concatenate(part), *parts)

    def cost(self, x: Any) -> Cost:
        weights = [v for v in self.variables if v.name != "seed_generator_state"]
        return _cost(weights, self.call, x)


class File:
    """A TFLite file, run in its target's runtime on this host."""

    def __init__(self, artifact: Any):
        from keras_distill.tflite import runtimes

        self.artifact = artifact
        self.runtime = runtimes.on_host(artifact.runtime)

    def outputs(self, x: Any, batch_size: int) -> Any:
        return self.artifact.predict(x)

    def cost(self, x: Any) -> Cost:
        from keras_distill.tflite import runtimes

        report, tflite = self.artifact.report, self.artifact.tflite
        arena = runtimes.TFLiteMicro(tflite).arena["total"] if self.runtime == "micro" else None
        return Cost(
            parameters=report["parameters"],
            multiply_accumulates=report["multiply_accumulates"],
            bytes=len(tflite),
            zipped=len(zlib.compress(tflite, 9, wbits=-15)),
            arena=arena,
        )


def _cost(weights: Sequence, call: Callable, x: Any) -> Cost:
    sizes = [(math.prod(v.shape), tf.as_dtype(v.dtype).size) for v in weights]
    macs, note = None, None
    try:
        macs = multiply_accumulates(call, x)
    except Opaque as error:
        return Cost(None, None, None, note=str(error))
    except ValueError as error:
        note = f"multiply-accumulates are unknown. {error}"
    return Cost(sum(count for count, _ in sizes), macs, sum(math.prod(s) for s in sizes), note=note)


def of_each(
    argument: str, given: Any, names: Iterable[str], is_right: Callable[[Any], bool], what: str
) -> dict[str, Any]:
    """What each candidate is given, where there is one for all or a dict of one for each.

    Args:
        argument: Name of the argument, for messages.
        given: Its value.
        names: Names of the candidates.
        is_right: Whether a single value is what it must be.
        what: What that is, in words.

    Raises:
        TypeError: A value is something else.
        ValueError: A candidate has none, or there is one for what is no candidate.
    """
    names = list(names)
    found = dict(given) if isinstance(given, Mapping) else dict.fromkeys(names, given)
    if not all(map(is_right, found.values())):
        raise TypeError(
            f"`{argument}` must be {what}, or a dict of one for each candidate. "
            f"Received: {argument}={given!r}"
        )
    if set(found) != set(names):
        raise ValueError(
            f"`{argument}` must be {what} for all candidates, or have one for each candidate. "
            f"Received: {list(found)} for {names}"
        )
    return found
