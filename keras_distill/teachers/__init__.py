"""Teachers: anything that answers with outputs for a batch."""

import os
import pathlib

import keras

from keras_distill.teachers.arrays import Arrays
from keras_distill.teachers.base import BaseTeacher
from keras_distill.teachers.batches import Answered, Keyed, Views, keyed
from keras_distill.teachers.ensemble import Ensemble
from keras_distill.teachers.functions import Function, LiteRT, SavedModel
from keras_distill.teachers.live import Teacher
from keras_distill.teachers.records import manifest_path
from keras_distill.teachers.store import store
from keras_distill.teachers.stored import Stored

__all__ = [
    "Answered",
    "Arrays",
    "BaseTeacher",
    "Ensemble",
    "Function",
    "Keyed",
    "LiteRT",
    "SavedModel",
    "Stored",
    "Teacher",
    "Views",
    "as_teacher",
    "keyed",
    "store",
]


def as_teacher(teacher) -> BaseTeacher:
    """The teacher that something makes.

    Args:
        teacher: A teacher, a Keras model, a function of a batch of tensors, or a path: a `.keras`
            or `.tflite` file, the folder of a SavedModel, or one that `store` wrote.

    Returns:
        A `BaseTeacher`.
    """
    if isinstance(teacher, BaseTeacher):
        return teacher
    if isinstance(teacher, (str, os.PathLike)):
        return _load(pathlib.Path(teacher))
    if isinstance(teacher, keras.Model) or not callable(teacher):
        return Teacher(teacher)
    return Function(teacher)


def _load(path):
    if path.suffix == ".tflite":
        return LiteRT(path)
    if path.suffix == ".keras":
        return Teacher(keras.models.load_model(path))
    if manifest_path(path).is_file():
        return Stored(path)
    return SavedModel(path)
