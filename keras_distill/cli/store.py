"""`keras-distill store`: a teacher's outputs for the training examples, computed once.

  keras-distill store --data=fashion_mnist --teacher=teacher.keras --output=answers
  keras-distill train --data=fashion_mnist --teacher=teacher.keras --student=nets:small \\
      --answers=answers

With --views and --augment the teacher's outputs for several augmented views of each example are
stored, each of which is redrawn for the student from its seed. If it is interrupted, the same
command continues where it stopped. A folder with outputs of another teacher, other data or other
settings is refused.
"""

from collections.abc import Sequence
from typing import Any

from absl import flags as absl_flags
from rich.console import Console

from keras_distill import data, teachers
from keras_distill.cli import datasets, image_views, models
from keras_distill.cli.plan import store_settings


def main(
    flags: absl_flags.FlagValues, arguments: Sequence[str], console: Console
) -> dict[str, Any]:
    """Writes the outputs."""
    if arguments:
        raise ValueError(f"unexpected argument {arguments[0]!r}; flags begin with --.")
    if flags.teacher is None or flags.output is None:
        raise ValueError("say which teacher and where to: --teacher=FILE.keras --output=FOLDER.")
    if not models.is_file(flags.teacher):
        raise ValueError(
            f"--teacher={flags.teacher} must be a .keras, .h5 or .tflite file, or the folder of "
            "a SavedModel: `train` makes one."
        )
    examples = datasets.load(flags).train
    teacher = models.load_teacher(flags.teacher, examples.element_spec[0])
    augment = image_views.augmentation(flags.augment, examples.element_spec[0].shape)
    views = None if augment is None else data.Augmentation(augment)
    try:
        stored = teachers.store(
            teacher,
            examples,
            flags.output,
            **store_settings(flags, views),
            verbose=0 if flags.json else 1,
        )
    except KeyboardInterrupt:
        raise KeyboardInterrupt("The same command again goes on where it was.") from None
    console.print(f"{stored.examples:,} examples, {stored.views} views of each: {flags.output}")
    return {"folder": flags.output, "examples": stored.examples, "views": stored.views}
