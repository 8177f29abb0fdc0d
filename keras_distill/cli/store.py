"""`keras-distill store`: what a teacher says of each training example, written once.

  keras-distill store --data=fashion_mnist --teacher=teacher.keras --output=answers
  keras-distill train --data=fashion_mnist --teacher=teacher.keras --student=nets:small \\
      --answers=answers

With --views and --augment several augmented views of each example are answered, each redrawn for
the student from its seed. Interrupted, the command goes on where it was when it is run again. A
folder with answers of another teacher, other data or other settings is refused.
"""

from absl import flags as absl_flags

from keras_distill import data, teachers
from keras_distill.cli import datasets, models, train


def define(flags):
    """Declares the command's flags."""
    datasets.define(flags)
    train.define_answers(flags)
    to = {"flag_values": flags}
    absl_flags.DEFINE_string("teacher", None, "The teacher: a .keras file.", **to)
    absl_flags.DEFINE_string("output", None, "Folder for the answers.", **to)
    absl_flags.DEFINE_list("augment", [], "As for `train`.", **to)
    absl_flags.DEFINE_float("temperature", None, "Of the loss that will read them.", **to)
    absl_flags.DEFINE_integer("batch_size", 128, "Views answered at once.", lower_bound=1, **to)


def main(flags, arguments, console):
    """Writes the answers."""
    if arguments:
        raise ValueError(f"unexpected argument {arguments[0]!r}; flags begin with --.")
    if flags.teacher is None or flags.output is None:
        raise ValueError("say which teacher and where to: --teacher=FILE.keras --output=FOLDER.")
    teacher = models.load(flags.teacher)
    examples = datasets.load(flags).train
    models.check(teacher, flags.teacher, examples.element_spec[0])
    augment = train.augmentation(flags.augment, examples.element_spec[0].shape)
    try:
        stored = teachers.store(
            teacher,
            examples,
            flags.output,
            **train.store_settings(flags, augment and data.Augmentation(augment)),
            verbose=0 if flags.json else 1,
        )
    except KeyboardInterrupt:
        raise KeyboardInterrupt("The same command again goes on where it was.") from None
    console.print(f"{stored.examples:,} examples, {stored.views} views of each: {flags.output}")
    return {"folder": flags.output, "examples": stored.examples, "views": stored.views}
