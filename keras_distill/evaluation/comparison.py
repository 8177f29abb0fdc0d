"""`compare`: teacher, baseline, students and exported files in one table."""

import io

import rich.box
import rich.console
import rich.table
from sklearn import metrics

from keras_distill.evaluation import samples
from keras_distill.evaluation.candidates import as_candidate


class Comparison:
    """Candidates side by side. `compare` makes it; `print` shows it as a table.

    Attributes:
        rows: One dict for each candidate: its `"name"`, and its values by metric.
        notes: What a reader of the table must know, as sentences.
    """

    def __init__(self, rows, notes):
        self.rows = rows
        self.notes = notes

    def table(self) -> rich.table.Table:
        """The comparison as a table of `rich`."""
        table = rich.table.Table(
            box=rich.box.SIMPLE_HEAD, caption="\n".join(self.notes), caption_justify="left"
        )
        table.add_column("")
        columns = [c for c in _COLUMNS if any(row.get(c) is not None for row in self.rows)]
        for column in columns:
            table.add_column(column.replace("_", " "), justify="right")
        for row in self.rows:
            table.add_row(row["name"], *(_COLUMNS[c](row.get(c)) for c in columns))
        return table

    def __rich__(self):
        return self.table()

    def __str__(self):
        console = rich.console.Console(file=io.StringIO(), width=100)
        console.print(self.table())
        return console.file.getvalue()


def compare(candidates, data, *, teacher="teacher", batch_size=256) -> Comparison:
    """Runs candidates on the same held-out data and puts them side by side.

    Args:
        candidates: Dict from names to Keras models, `Distiller`s (their student counts), teachers
            of `keras_distill.teachers`, artefacts of `keras_distill.tflite` (run in their
            target's own runtime), or paths of `.keras` and `.tflite` files.
        data: Held-out inputs and labels: `(x, y)`, a `tf.data.Dataset`, a `keras.utils.PyDataset`
            or another iterable of batches.
        teacher: Name of the candidate with which the others' agreement is measured. Where there
            is none of this name, agreement is left out.
        batch_size: Samples that a Keras model predicts at a time.

    Returns:
        A `Comparison`.

    Raises:
        ValueError: If labels and outputs don't fit.

    Example:

    >>> result = keras_distill.evaluation.compare(
    ...     {"teacher": teacher, "distilled": student, "int8": artefact}, (x_test, y_test)
    ... )
    >>> print(result)
    """
    x, y = samples.read(data)
    outputs, rows = {}, []
    for name, model in candidates.items():
        candidate = as_candidate(model, name)
        outputs[name] = candidate.outputs(x, batch_size)
        cost = candidate.cost(x)
        rows.append(
            {
                "name": name,
                "accuracy": metrics.accuracy_score(y, outputs[name].argmax(-1)),
                "parameters": cost.parameters,
                "multiply_accumulates": cost.multiply_accumulates,
                "bytes": cost.bytes,
            }
        )
    if teacher in outputs:
        for row in rows:
            row["agreement"] = metrics.accuracy_score(
                outputs[teacher].argmax(-1), outputs[row["name"]].argmax(-1)
            )
    return Comparison(rows, [])


def _count(value):
    return "" if value is None else f"{value:,}"


def _share(value):
    return "" if value is None else f"{value:.2%}"


_COLUMNS = {
    "accuracy": _share,
    "agreement": _share,
    "parameters": _count,
    "multiply_accumulates": _count,
    "bytes": _count,
}
