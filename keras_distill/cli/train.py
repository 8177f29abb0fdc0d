"""`keras-distill train`: a student, on labels and on the outputs of a teacher.

  keras-distill train --data=fashion_mnist --teacher=teacher.keras --student=nets:small
  keras-distill train --data=photos/ --image_size=96,96 --teacher=EfficientNetB0 \\
      --weights=imagenet --student=MobileNetV2 --augment=crop,flip --epochs=30
  keras-distill train --resume=runs/train-20260101-120000

Teacher and student are named by the path of a .keras or .h5 file, a model of keras.applications,
or MODULE:FUNCTION: the function is called with the shape of an input and the number of outputs, and
returns a model that ends in logits. A teacher may also be a .tflite file or a SavedModel's folder.
One that isn't a file or a folder is trained first.

The run's folder holds settings.flags (to be used again with --flagfile), log.txt, student.keras
(and teacher.keras if it was trained), the history of each training as .csv, TensorBoard events
where TensorBoard is installed, and comparison.json: all models on the test data. After Ctrl-C,
--resume continues from the end of the last complete epoch.
"""

from collections.abc import Sequence
from typing import Any

from absl import flags as absl_flags
from rich.console import Console

from keras_distill import evaluation
from keras_distill.cli import runs
from keras_distill.cli.plan import Plan


def main(
    flags: absl_flags.FlagValues, arguments: Sequence[str], console: Console
) -> dict[str, Any]:
    """Trains, compares on the test data, and returns the comparison."""
    run = runs.choose(flags, "train", arguments)
    plan = Plan(flags)
    with runs.recorded(run, flags, "train"):
        candidates = {"teacher": plan.teacher(run)}
        if flags.baseline:
            candidates["student on labels"] = plan.student_on_labels(run)
        candidates["student distilled"] = plan.student(run, candidates["teacher"])
        comparison = evaluation.compare(
            candidates,
            plan.test,
            task=plan.task if plan.task == "multilabel" else flags.task,
            class_names=plan.class_names,
            batch_size=flags.batch_size,
        )
        run.write("comparison.json", comparison.to_dict())
    console.print(comparison)
    console.print(f"The run is in {run.folder}")
    return {"folder": str(run.folder), **comparison.to_dict()}
