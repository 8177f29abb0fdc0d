"""Models named on the command line."""

import difflib
import importlib
import inspect
import pathlib
import sys
from typing import Any

import keras
import tensorflow as tf
from keras import layers

from keras_distill import teachers
from keras_distill.cli import datasets
from keras_distill.distiller import Distiller
from keras_distill.mutual import MutualDistiller
from keras_distill.outputs import values_of
from keras_distill.teachers import BaseTeacher
from keras_distill.teachers.conversion import KERAS_SUFFIXES, load_model


def build(name: str, spec: tf.TensorSpec, outputs: int, weights: str | None = None) -> keras.Model:
    """The model that a flag names, checked against the data.

    Args:
        name: The path of a `.keras` or `.h5` file; `module:function`, called with the shape of an
            input and the number of outputs; or the name of a model of `keras.applications`.
        spec: `tf.TensorSpec` of one input.
        outputs: Number of classes, or of values to regress.
        weights: For `keras.applications`: `"imagenet"`, the path of a file of weights, or `None`.

    Returns:
        A `keras.Model` that answers with logits, or with values.

    Raises:
        ValueError: If there is no such model, or it doesn't fit the data.
    """
    if name.endswith(KERAS_SUFFIXES):
        model = load(name)
    elif ":" in name:
        try:
            model = datasets.function(name)(tuple(spec.shape), outputs)
        except TypeError as error:
            raise ValueError(f"{name}(shape, outputs) failed: {error}") from error
        if not isinstance(model, keras.Model):
            raise ValueError(f"{name} gave {type(model).__name__}, not a Keras model.")
    else:
        model = _application(name, spec.shape, outputs, weights)
    if not model.built:
        model.build((None, *spec.shape))
    check(model, name, spec, outputs)
    return model


def is_file(name: str) -> bool:
    """Whether a flag names a trained model, and not one to be built and trained."""
    return name.endswith((*KERAS_SUFFIXES, ".tflite")) or pathlib.Path(name).is_dir()


def load(path: str | pathlib.Path) -> keras.Model:
    """The model of a `.keras` or `.h5` file; the student, if the file holds a `Distiller`.

    Raises:
        ValueError: If there is no such file, it can't be read, or it holds several students.
    """
    # Detectors are compiled with losses that Keras knows once they are loaded.
    importlib.import_module("keras_distill.detection")
    model = load_model(pathlib.Path(path))
    if isinstance(model, MutualDistiller):
        names = ", ".join(student.name for student in model.students)
        raise ValueError(
            f"{path} holds several students ({names}): save the one that you mean, as in "
            "`mutual.students[0].save(...)`, and give its file."
        )
    return model.student if isinstance(model, Distiller) else model


def load_teacher(
    path: str, spec: tf.TensorSpec, outputs: int | None = None
) -> keras.Model | BaseTeacher:
    """The teacher in a file, checked against the data where it tells what it reads.

    Args:
        path: Path of a `.keras`, `.h5` or `.tflite` file, or the folder of a SavedModel.
        spec: `tf.TensorSpec` of one input.
        outputs: Number of classes, or of values to regress. `None`: any.

    Raises:
        ValueError: If there is no such file, or it doesn't fit the data.
    """
    teacher = load(path) if path.endswith(KERAS_SUFFIXES) else load_foreign(path)
    check(teacher, path, spec, outputs)
    return teacher


def load_foreign(path: str) -> BaseTeacher:
    """The teacher in a `.tflite` file or the folder of a SavedModel.

    Raises:
        ValueError: If there is no such file.
    """
    file = teachers.LiteRT(path) if path.endswith(".tflite") else teachers.SavedModel(path)
    try:
        file.require_logits(True)
    except ValueError:  # It answers with probabilities.
        return teachers.Teacher(file, from_logits=False)
    return file


def _application(
    name: str, shape: tf.TensorShape, outputs: int, weights: str | None
) -> keras.Model:
    """A model of `keras.applications` with a new head, reading pixels from 0 to 255."""
    function = getattr(keras.applications, name, None)
    if not inspect.isfunction(function):
        names = [n for n in dir(keras.applications) if n[0].isupper()]
        near = difflib.get_close_matches(name, names, n=3)
        hint = f" Did you mean {', '.join(near)}?" if near else ""
        raise ValueError(
            f"{name!r} is no .keras or .h5 file, no MODULE:FUNCTION and no model of "
            f"keras.applications.{hint}"
        )
    if len(shape) != 3 or None in shape:
        raise ValueError(f"{name} reads images of a fixed size; the data have shape {shape}.")
    backbone = function(
        include_top=False, weights=weights, input_shape=(*shape[:2], 3), pooling="avg"
    )
    pixels = keras.Input(shape)
    x = layers.Concatenate()([pixels] * 3) if shape[-1] == 1 else pixels
    preprocess = sys.modules[function.__module__].preprocess_input
    x = backbone(preprocess(keras.ops.cast(x, "float32")))
    return keras.Model(pixels, layers.Dense(outputs)(x), name=name.lower())


def check(model: Any, name: str, spec: tf.TensorSpec, outputs: int | None = None) -> None:
    """Raises `ValueError` unless the model reads such inputs and, if said, gives such outputs."""
    if isinstance(model, BaseTeacher):
        gives = _shape_for_zeros(model, name, spec)
    elif isinstance(getattr(model, "input_shape", None), tuple):
        reads, gives = model.input_shape[1:], model.output_shape[1:]
        fits = len(reads) == len(spec.shape) and all(
            a in (b, None) for a, b in zip(reads, spec.shape, strict=True)
        )
        if not fits:
            raise ValueError(f"{name} reads inputs of shape {reads}; the data have {spec.shape}.")
    else:
        return
    if outputs not in (None, gives[-1]):
        raise ValueError(f"{name} gives {gives[-1]} outputs; the data need {outputs}.")


def _shape_for_zeros(teacher: BaseTeacher, name: str, spec: tf.TensorSpec) -> tuple:
    """Shape of a teacher's output for zeros of the data's shape, without the batch axis."""
    zeros = tf.zeros((1, *(size or 1 for size in spec.shape)), spec.dtype)
    try:
        values = values_of(teacher.combine(teacher.answer(zeros)[0]))
        return tuple(keras.tree.flatten(values)[0].shape[1:])
    except (tf.errors.OpError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{name} doesn't read inputs of shape {spec.shape} and type {spec.dtype.name}, which "
            "the data have; --prepare can change them."
        ) from error
