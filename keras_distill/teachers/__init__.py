"""Teachers: anything that answers with outputs for a batch."""

from keras_distill.teachers.arrays import Arrays
from keras_distill.teachers.base import BaseTeacher
from keras_distill.teachers.batches import Answered, Keyed, Views, keyed
from keras_distill.teachers.conversion import as_teacher
from keras_distill.teachers.ensemble import Ensemble
from keras_distill.teachers.functions import Function, SavedModel
from keras_distill.teachers.litert import LiteRT
from keras_distill.teachers.stored import Stored
from keras_distill.teachers.wrapper import Teacher
from keras_distill.teachers.writing import store

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
