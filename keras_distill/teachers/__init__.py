"""Teachers: anything that answers with outputs for a batch."""

from keras_distill.teachers.base import BaseTeacher
from keras_distill.teachers.live import Teacher

__all__ = ["BaseTeacher", "Teacher", "as_teacher"]


def as_teacher(teacher) -> BaseTeacher:
    """`teacher` itself where it is one, or the teacher that a Keras model makes."""
    return teacher if isinstance(teacher, BaseTeacher) else Teacher(teacher)
