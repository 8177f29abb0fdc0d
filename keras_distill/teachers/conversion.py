"""What a user gives as a teacher, made one."""

import os
import pathlib
import zipfile
from typing import Any

import keras
import tensorflow as tf

from keras_distill.teachers.base import BaseTeacher
from keras_distill.teachers.functions import Function, SavedModel
from keras_distill.teachers.litert import LiteRT
from keras_distill.teachers.live import KerasTeacher
from keras_distill.teachers.records import manifest_path
from keras_distill.teachers.stored import Stored

#: Endings of the files of Keras models.
KERAS_SUFFIXES = (".keras", ".h5", ".hdf5")


def as_teacher(teacher: Any, from_logits: bool | dict = True) -> BaseTeacher:
    """The teacher that something makes.

    Args:
        teacher: A teacher, a Keras model, a function of a batch of tensors, or a path: a `.keras`,
            `.h5` or `.tflite` file, the folder of a SavedModel, or one that `store` wrote.
        from_logits: As in `Teacher`.

    Returns:
        A `BaseTeacher`.

    Raises:
        TypeError: If it can't be a teacher.
        ValueError: If a file's outputs are found to be probabilities although `from_logits` is
            true.
    """
    made = _made(teacher)
    made.require_logits(from_logits)
    return made


def _made(teacher):
    if isinstance(teacher, BaseTeacher):
        return teacher
    if isinstance(teacher, (str, os.PathLike)):
        return _loaded(pathlib.Path(teacher))
    if isinstance(teacher, keras.Model):
        return KerasTeacher(teacher)
    if isinstance(teacher, type):
        raise TypeError(f"`teacher` must be an object, not the class {teacher.__name__}.")
    if callable(teacher):
        return Function(teacher)
    raise TypeError(
        "`teacher` must be a `keras.Model`, one of `keras_distill.teachers`, a function or a path. "
        f"Received: teacher={teacher!r} of type {type(teacher).__name__}"
    )


def load_model(path: pathlib.Path) -> keras.Model:
    """The model of a `.keras` file, or of an HDF5 file of earlier versions of Keras.

    Raises:
        ValueError: If there is no such file, it can't be read, or it holds weights alone.
    """
    if not path.is_file():
        raise ValueError(f"There is no file {path}.")
    if path.name.endswith(".weights.h5"):
        raise ValueError(
            f"{path} holds weights without a model: build the model, call "
            f"`model.load_weights({str(path)!r})`, and give the model."
        )
    try:
        # What an HDF5 file was compiled with may be of a version that is no more.
        return keras.saving.load_model(path, compile=path.suffix == ".keras")
    except (OSError, KeyError, ValueError) as error:
        # What is wrong inside a model, such as an unknown class, Keras says itself.
        is_container = path.suffix != ".keras" or zipfile.is_zipfile(path)
        if isinstance(error, ValueError) and is_container:
            raise
        raise ValueError(f"{path} is not a model of Keras.") from error


def _loaded(path):
    if path.suffix == ".tflite":
        return LiteRT(path)
    if path.suffix in KERAS_SUFFIXES:
        model = load_model(path)
        # Of a saved `Distiller`, the student teaches.
        student = getattr(model, "student", None)
        return KerasTeacher(student if isinstance(student, keras.Model) else model)
    if manifest_path(path).is_file():
        return Stored(path)
    if not tf.saved_model.contains_saved_model(str(path)):
        raise ValueError(
            f"There is no SavedModel at {path}. A teacher's path is that of a "
            f"{', '.join(KERAS_SUFFIXES)} or .tflite file, of the folder of a SavedModel, or of a "
            "folder that `keras_distill.teachers.store` wrote."
        )
    return SavedModel(path)
