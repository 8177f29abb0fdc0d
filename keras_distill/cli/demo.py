"""`keras-distill demo`: the main job on real digits, from teacher to proven files."""

import pathlib

import keras
import numpy as np
from keras import layers
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_distill

TEMPERATURE = 4.0
ALPHA = 0.1
EPOCHS = 12


def demo(folder, seed=0, console=None):
    """Distils a digit classifier, exports it, proves the files and shows all side by side.

    Teacher, the student on labels alone and the distilled student are trained on the same
    images, for the same number of epochs; the two students start from the same weights.

    Args:
        folder: Folder for the models and the exported files.
        seed: Seed of weights and order of the data.
        console: The `rich.console.Console` to print to.

    Returns:
        The `keras_distill.evaluation.Comparison`.
    """
    console = console or Console()
    folder = pathlib.Path(folder)
    keras.utils.set_random_seed(seed)
    x_train, y_train, test = digits(seed)
    console.print(
        f"[bold]1,797 handwritten digits[/] (scikit-learn's): {len(y_train):,} images to train on "
        f"(with shifted copies), {len(test[1])} held out."
    )
    teacher, on_labels, distilled = convolutional(48, 64), student(), student()
    distilled.set_weights(on_labels.get_weights())
    with _progress(console) as progress:
        train(teacher, x_train, y_train, progress, "Teacher")
        train(on_labels, x_train, y_train, progress, "Student on labels alone")
        distiller = keras_distill.Distiller(
            distilled, teacher, keras_distill.losses.SoftTargets(TEMPERATURE), alpha=ALPHA
        )
        train(distiller, x_train, y_train, progress, "Student distilled")

    folder.mkdir(parents=True, exist_ok=True)
    teacher.save(folder / "teacher.keras")
    distilled.save(folder / "student.keras")
    files = {}
    for target, quantization in (("android", "float32"), ("android", "int8"), ("micro", "int8")):
        with console.status(f"Exporting for {target}, {quantization} ..."):
            artefact = keras_distill.tflite.convert(
                distilled, target=target, quantization=quantization, calibration=x_train[:300]
            )
            artefact.verify(*test)
            artefact.save(folder / f"{target}-{quantization}")
        console.print(f"Exported for {target} as {quantization}, and proven in its runtime.")
        files[f"{target}, {quantization}"] = artefact
    result = keras_distill.evaluation.compare(
        {"teacher": teacher, "student on labels": on_labels, "student distilled": distilled}
        | files,
        test,
    )
    console.print(result.table())
    console.print(f"Models, files and what firmware and apps need beside them: [bold]{folder}[/]")
    return result


def digits(seed=0):
    """Handwritten digits: shifted copies to train on, and 600 images held out.

    Returns:
        `(x_train, y_train, (x_test, y_test))`: images of shape (samples, 8, 8, 1) from 0 to 1,
        and classes.
    """
    data = load_digits()
    images = (data.images[..., None] / 16).astype("float32")
    x, x_test, y, y_test = train_test_split(
        images, data.target, test_size=600, stratify=data.target, random_state=0
    )
    generator = np.random.default_rng(seed)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    copies = [x]
    for _ in range(3):
        offsets = generator.integers(0, 3, (len(x), 2))
        copies.append(
            np.stack(
                [image[i : i + 8, j : j + 8] for image, (i, j) in zip(padded, offsets, strict=True)]
            )
        )
    return np.concatenate(copies), np.tile(y, 4), (x_test, y_test)


def student():
    """The small model that is to be shipped."""
    return convolutional(6, 12, strides=2)


def convolutional(first, second, strides=1):
    """A convolutional classifier of digits that gives logits."""
    stack = [keras.Input((8, 8, 1))]
    for width, stride in ((first, strides), (second, 1)):
        stack += [
            layers.Conv2D(width, 3, strides=stride, padding="same", use_bias=False),
            layers.BatchNormalization(momentum=0.9),
            layers.ReLU(),
        ]
    return keras.Sequential([*stack, layers.GlobalAveragePooling2D(), layers.Dense(10)])


def train(model, x, y, progress, title, epochs=EPOCHS):
    """Trains a model, or a distiller, on the budget that all of the demo's models have."""
    steps = -(-len(y) // 128) * epochs
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.01, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(
        x, y, batch_size=128, epochs=epochs, verbose=0, callbacks=[_Bar(progress, title, epochs)]
    )


def _progress(console):
    return Progress(
        TextColumn("{task.description:24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("epochs, {task.fields[accuracy]} of training images right"),
        TimeRemainingColumn(),
        console=console,
    )


class _Bar(keras.callbacks.Callback):
    """One bar for one training."""

    def __init__(self, progress, title, epochs):
        super().__init__()
        self.progress = progress
        self.task = progress.add_task(title, total=epochs, accuracy="  ... ")

    def on_epoch_end(self, epoch, logs=None):
        self.progress.update(self.task, advance=1, accuracy=f"{logs['accuracy']:6.1%}")
