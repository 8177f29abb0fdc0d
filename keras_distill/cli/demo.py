"""`keras-distill demo`: the main job on real digits, from teacher to proven files.

  keras-distill demo

Trains a teacher, a student on the labels and the same student distilled on scikit-learn's digits,
exports the distilled one for phones and microcontrollers, and shows all side by side.
"""

import math
import pathlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import rich.box
from absl import flags as absl_flags
from keras import layers
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from keras_distill import evaluation, losses, tflite
from keras_distill.distiller import Distiller
from keras_distill.evaluation import tables

TEMPERATURE = 4.0
ALPHA = 0.1
EPOCHS = 20
BATCH_SIZE = 64
TRAINING_IMAGES = 400
COPIES = 4


def main(
    flags: absl_flags.FlagValues, arguments: Sequence[str], console: Console
) -> dict[str, Any]:
    """Runs the demo and returns its comparison."""
    if arguments:
        raise ValueError(f"unexpected argument {arguments[0]!r}; flags begin with --.")
    if pathlib.Path(flags.output).is_file():
        raise ValueError(f"--output={flags.output} is a file: name a folder.")
    return {**demo(flags.output, flags.seed, console).to_dict()}


def demo(
    folder: str | pathlib.Path, seed: int = 0, console: Console | None = None
) -> evaluation.Comparison:
    """Distils a digit classifier, exports it, proves the files and shows all side by side.

    Args:
        folder: Folder for the models and the exported files.
        seed: Seed of the split, of weights and of the order of the data.
        console: The `rich.console.Console` to print to.

    Returns:
        The `keras_distill.evaluation.Comparison`.
    """
    console = console or Console()
    folder = pathlib.Path(folder)
    x_train, y_train, test = digits(seed)
    console.print(
        f"[bold]scikit-learn's handwritten digits[/]: {len(y_train):,} images to train on, "
        f"{len(test[1])} held out."
    )
    with _progress(console) as progress:
        teacher, on_labels, distilled = train_all(x_train, y_train, seed, progress)
    folder.mkdir(parents=True, exist_ok=True)
    teacher.save(folder / "teacher.keras")
    distilled.save(folder / "student.keras")
    files = {}
    for target, quantization in (("android", "float32"), ("android", "int8"), ("micro", "int8")):
        with console.status(f"Exporting for {target}, {quantization} ..."):
            artifact = tflite.convert(
                distilled, target=target, quantization=quantization, calibration=x_train[:300]
            )
            artifact.verify(*test)
            artifact.save(folder / f"{target}-{quantization}")
        console.print(f"Exported for {target} as {quantization}, and proven in its runtime.")
        files[f"{target}, {quantization}"] = artifact
    with console.status("Comparing ..."):
        result = evaluation.compare(
            {"teacher": teacher, "student on labels": on_labels, "student distilled": distilled}
            | files,
            test,
        )
    console.print(_summary(result))
    console.print(f"Models, files and what firmware and apps need beside them: [bold]{folder}[/]")
    return result


def train_all(
    x: np.ndarray, y: np.ndarray, seed: int = 0, progress: Progress | None = None
) -> tuple[keras.Model, keras.Model, keras.Model]:
    """Trains the teacher, the student on labels alone and the same student distilled.

    All see the same images, with shifted copies of each, for the same number of epochs; the two
    students start from the same weights.

    Returns:
        `(teacher, on_labels, distilled)`.
    """
    teacher, on_labels, distilled = make_models(seed)
    x, y = shifted(x, y, seed)
    train(teacher, x, y, progress, "Teacher")
    train(on_labels, x, y, progress, "Student on labels alone")
    distiller = Distiller(distilled, teacher, losses.SoftTargets(TEMPERATURE), alpha=ALPHA)
    train(distiller, x, y, progress, "Student distilled")
    return teacher, on_labels, distilled


def digits(seed: int = 0) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Handwritten digits: a few to train on, as where labels are scarce, and the rest held out.

    Args:
        seed: Seed by which they are drawn.

    Returns:
        `(x_train, y_train, (x_test, y_test))`: images of shape (samples, 8, 8, 1) from 0 to 1,
        and classes.
    """
    data = load_digits()
    images = (data.images[..., None] / 16).astype("float32")
    x_train, x_test, y_train, y_test = train_test_split(
        images,
        data.target,
        train_size=TRAINING_IMAGES,
        stratify=data.target,
        random_state=seed,
    )
    return x_train, y_train, (x_test, y_test)


def shifted(x: np.ndarray, y: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images followed by copies of each, moved by up to one pixel, and their labels."""
    moves = np.random.default_rng(seed).integers(-1, 2, (COPIES, len(x), 2))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows, columns = (1 + moves[..., i, None] + np.arange(8) for i in (0, 1))
    samples = np.arange(len(x))[:, None, None]
    moved = padded[samples, rows[..., :, None], columns[..., None, :]]
    return np.concatenate([x, *moved]), np.tile(y, COPIES + 1)


def make_models(seed: int) -> tuple[keras.Model, keras.Model, keras.Model]:
    """The teacher and two students, which start from the same weights."""
    keras.utils.set_random_seed(seed)
    teacher, one, other = make_teacher(), make_student(), make_student()
    other.set_weights(one.get_weights())
    return teacher, one, other


def make_teacher() -> keras.Model:
    """The large model, which learns best but is too large to ship."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            *_block(32),
            *_block(64),
            layers.MaxPooling2D(),
            *_block(64),
            layers.GlobalAveragePooling2D(),
            layers.Dropout(0.3),
            layers.Dense(10),
        ],
        name="teacher",
    )


def make_student() -> keras.Model:
    """The small model that is to be shipped."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            *_block(8),
            layers.MaxPooling2D(),
            *_block(16),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(10),
        ],
        name="student",
    )


def _block(width: int) -> tuple[keras.layers.Layer, ...]:
    return (
        layers.Conv2D(width, 3, padding="same", use_bias=False),
        layers.BatchNormalization(momentum=0.9),
        layers.ReLU(),
    )


def train(
    model: keras.Model, x: np.ndarray, y: np.ndarray, progress: Progress | None, title: str
) -> None:
    """Trains a model, or a distiller, on the budget that all of the demo's models have."""
    compile_for(model, math.ceil(len(y) / BATCH_SIZE))
    model.fit(
        x,
        y,
        batch_size=BATCH_SIZE,
        epochs=EPOCHS,
        verbose=0,
        callbacks=[] if progress is None else [_Bar(progress, title, EPOCHS)],
    )


def compile_for(model: keras.Model, steps: int) -> None:
    """Compiles a model, or a distiller, for so many steps in each of the epochs."""
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.01, steps * EPOCHS)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )


def _summary(result: evaluation.Comparison) -> Table:
    """The comparison in a line for each candidate."""
    titles = {
        "accuracy": "accuracy",
        "agreement": "agreement",
        "parameters": "weights",
        "multiply_accumulates": "MACs",
        "bytes": "bytes",
        "arena": "arena",
    }
    table = Table("", box=rich.box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for title in titles.values():
        table.add_column(title, justify="right", no_wrap=True)
    for row in result.rows:
        values: dict[str, Any] = {**row}
        cells = [tables.METRICS[x][1](values[x]) if values.get(x) else "" for x in titles]
        table.add_row(row["name"], *cells)
    table.caption = (
        f"On {result.samples:,} held-out digits. Agreement: same answer as the teacher. MACs: "
        "multiply-accumulates for one image. Bytes: of the weights, or of the file. Arena: bytes "
        "of working memory on a microcontroller."
    )
    table.caption_justify = "left"
    return table


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:24}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("epochs"),
        TimeRemainingColumn(),
        console=console,
    )


class _Bar(keras.callbacks.Callback):
    """One bar for one training."""

    def __init__(self, progress: Progress, title: str, epochs: int):
        super().__init__()
        self.progress = progress
        self.task = progress.add_task(title, total=epochs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.progress.update(self.task, advance=1)
