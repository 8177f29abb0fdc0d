"""MLPerf Tiny's image classification: its ResNet-8, taught by its larger model, in 8 bits.

    python benchmarks/mlperf_tiny.py

The student is the network of MLPerf Tiny's reference (CIFAR-10, 78 thousand weights), which was
trained on labels for 500 epochs. The teacher is the benchmark's larger `.tflite`, run in LiteRT; it
answers once for a few crops and flips of each training image. The student trains on these stored
views, in rounds that each begin with the first learning rate again (warm restarts,
arXiv:1608.03983), so that a longer run goes on from a shorter one, for all students or the first
ones: `--epochs=60,90,200 --students=3,1,1`. Beside the distilled students, others learn the first
round from the labels alone, from the same views by the same recipe: `--on_labels=3`. After a round
a student is quantized twice: after training, and while trained on for a few epochs more. The test
set is looked at by these files alone.
Writes `benchmarks/results/mlperf_tiny.json`, and the table in `docs/performance.md`. A run that is
stopped goes on where it was; what is done is in `--runs`.

Training takes about half the time with `TF_ENABLE_ONEDNN_OPTS=1` where the processor multiplies
bfloat16: the float students' convolutions read it then (weights and sums stay in float32).
"""

import json
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags
from common import DATA, RESULTS, ROOT, cifar10, gain, insert, machine, once, runs_of, write
from faster import bfloat16, fused
from int8 import accuracy, freeze_last
from pictures import draw
from step_time import resnet

import keras_distill
from keras_distill import _markdown, quantization, teachers, tflite

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "data", DATA, "Folder that holds cifar10/ and mlperf_tiny/ic/; what it lacks is downloaded."
)
flags.DEFINE_string("runs", str(ROOT / "runs" / "mlperf_tiny"), "Folder for all that is done.")
flags.DEFINE_list("epochs", "60,90", "Epochs of each round of the float students' training.")
flags.DEFINE_list("students", "3,1", "Distilled students of each round: the first ones go on.")
flags.DEFINE_integer("on_labels", 3, "Number of students on labels, trained for the first round.")

SETTINGS = {
    "views": 8,
    "augmentation": "crops of the image with 4 pixels around it, flips",
    "temperature": 4.0,
    "alpha": {"distilled": 0.1, "on labels": 1.0},
    "batch_size": 128,
    "optimizer": "SGD, 0.05, momentum 0.9 of Nesterov, weight decay 1e-3, cosine decay to 0",
    "convolutions": "bfloat16 where TensorFlow's oneDNN has it, float32 in aware epochs",
    "aware_epochs": 4,
    "aware_rate": 0.01,
}
TEACHER = "pretrainedResnet_large_float"
REFERENCES = {
    "the reference, float32": "pretrainedResnet",
    "the reference, int8": "pretrainedResnet_quant",
}
MODELS = (
    "https://github.com/mlcommons/tiny/raw/master/benchmark/training/image_classification/"
    "trained_models/"
)


def reference(name):
    """Path of one of the benchmark's own `.tflite` files."""
    path = pathlib.Path(FLAGS.data, "mlperf_tiny", "ic", f"{name}.tflite")
    return path if path.exists() else keras.utils.get_file(origin=f"{MODELS}{name}.tflite")


def view(image, seed):
    """A crop of an image, flipped or not, from 0 to 1."""
    image = tf.image.resize_with_crop_or_pad(tf.cast(image, "float32") / 255, 40, 40)
    image = tf.image.stateless_random_crop(image, (32, 32, 3), seed)
    return tf.image.stateless_random_flip_left_right(image, seed)


def stored_answers(train, folder):
    """The teacher's answers to all views, computed once."""
    teacher = teachers.Teacher(
        teachers.LiteRT(reference(TEACHER), name="larger"),
        preprocess=lambda x: x * 255,
        from_logits=False,
    )
    return teachers.store(
        teacher, train, folder / "answers", views=SETTINGS["views"], augment=view, dtype="float32"
    )


def fit(kind, student, answers, train, rate, epochs, seed, folder=None, callbacks=()):
    """Trains a student of a kind; goes on from `folder` if a run was stopped."""
    data = answers.attach(train, seed=seed)
    data = data.shuffle(20_000, seed=seed).batch(SETTINGS["batch_size"], drop_remainder=True)
    schedule = keras.optimizers.schedules.CosineDecay(rate, epochs * len(data))
    distiller = keras_distill.Distiller(
        student,
        answers,
        keras_distill.losses.SoftTargets(SETTINGS["temperature"]),
        alpha=SETTINGS["alpha"][kind],
    )
    distiller.compile(
        keras.optimizers.SGD(schedule, 0.9, nesterov=True, weight_decay=1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,  # XLA makes convolutions slower on a CPU.
    )
    if folder is not None:
        callbacks = [*callbacks, keras.callbacks.BackupAndRestore(str(folder))]
    distiller.fit(data.prefetch(4), epochs=epochs, verbose=2, callbacks=callbacks)


def trained(kind, seed, rounds, answers, train, folder):
    """The float student, trained once and kept in `folder` after each round."""
    keras.utils.set_random_seed(seed)
    student, _ = resnet((32, 32, 3), 1, "resnet8")
    name = f"{kind.replace(' ', '_')}_seed_{seed}_epochs"
    for epochs in rounds:
        name += f"_{epochs}"
        path = folder / f"{name}.keras"
        if path.exists():
            student = keras.saving.load_model(path)
        else:
            backup = folder / f"backup_{name}"
            fast = keras.models.clone_model(student, clone_function=fused)
            fast.set_weights(student.get_weights())
            with bfloat16():
                fit(kind, fast, answers, train, 0.05, int(epochs), seed, backup)
            student.set_weights(fast.get_weights())
            student.save(path)
    return student


def aware(kind, student, answers, train, calibration, seed):
    """The student, trained on with the rounding of int8; ranges are fixed for the last epoch."""
    result = quantization.quantize_aware(student, calibration)
    epochs = SETTINGS["aware_epochs"]
    callbacks = [freeze_last(result, epochs)]
    fit(kind, result, answers, train, SETTINGS["aware_rate"], epochs, seed, callbacks=callbacks)
    return result


def measure(kind, seed, rounds, answers, arrays, test, folder):
    """Test accuracy and size of the files of one student after some rounds of training."""
    train = tf.data.Dataset.from_tensor_slices(arrays)
    student = trained(kind, seed, rounds, answers, train, folder)
    calibration = arrays[0][:1000].astype("float32") / 255
    after = aware(kind, student, answers, train, calibration, seed)
    files = {
        "float32": tflite.convert(student),
        "int8 after training": tflite.convert(
            student, quantization="int8", io="int8", calibration=calibration
        ),
        "int8, aware": tflite.convert(after, io="int8"),
    }
    images = test[0].astype("float32") / 255
    return {
        name: {
            "accuracy": accuracy(file.tflite, (images, test[1])),
            "bytes": len(file.tflite),
            "multiply_accumulates": file.report["multiply_accumulates"],
        }
        for name, file in files.items()
    }


def measure_reference(name, test):
    """Test accuracy and bytes of one of the benchmark's own files, which read 0 to 255."""
    content = reference(name).read_bytes()
    return {
        "accuracy": accuracy(content, (test[0].astype("float32"), test[1])),
        "bytes": len(content),
    }


def table(results):
    """The results as Markdown."""
    others = {"the teacher: the larger model, float32": results["teacher"]} | results["references"]
    rows = [
        (name, "", f"{100 * run['accuracy']:.2f}", f"{run['bytes']:,}")
        for name, run in others.items()
    ]
    for students, runs in results["students"].items():
        for name in runs[0]:
            values = [100 * run[name]["accuracy"] for run in runs]
            spread = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
            mean = f"{np.mean(values):.2f}{spread}"
            rows.append((f"{students}, {name}", len(runs), mean, f"{runs[0][name]['bytes']:,}"))
    settings = results["settings"]
    lines = [
        _markdown.table(["ResNet-8", "students", "test accuracy", "bytes"], rows),
        "",
        f"CIFAR-10, 10,000 test images, files in LiteRT. The reference trained on labels for 500 "
        f"epochs, the students on {settings['views']} stored views of each image; the aware ones "
        f"for {settings['aware_epochs']} more than the row says.",
    ]
    return "\n".join(lines + gains(results["students"]))


def gains(students):
    """Lines on what distillation gains over labels after the first round, in points."""
    kinds = {name.split(", ")[0]: runs for name, runs in reversed(students.items())}
    on_labels, distilled = kinds.get("on labels", []), kinds["distilled"]
    count = min(len(on_labels), len(distilled))
    if count < 2:
        return []
    found = []
    for file in distilled[0]:
        both = ([run[file]["accuracy"] for run in runs[:count]] for runs in (distilled, on_labels))
        points, half, shown = gain(*both)
        found.append(f"{file} {points:+.2f} ± {half:.2f} ({shown})")
    return [
        "",
        "Points that distilled students gain over those on labels of the same seeds and epochs, "
        f"mean of {count} with its 95 % interval: {'; '.join(found)}.",
    ]


def main(_):
    if len(FLAGS.students) != len(FLAGS.epochs):
        raise ValueError(
            "Say how many students each round has: --epochs and --students of one length. "
            f"Received: --epochs={','.join(FLAGS.epochs)} --students={','.join(FLAGS.students)}"
        )
    folder = runs_of(FLAGS.runs, SETTINGS)
    arrays, test = cifar10(FLAGS.data)
    answers = stored_answers(tf.data.Dataset.from_tensor_slices(arrays), folder)
    groups = [("on labels", FLAGS.epochs[:1], FLAGS.on_labels)] if FLAGS.on_labels else []
    for number, count in enumerate(FLAGS.students, 1):
        groups.append(("distilled", FLAGS.epochs[:number], int(count)))
    students = {}
    for kind, rounds, count in groups:
        name = f"{kind}, {' + '.join(rounds)} epochs"
        students[name] = [
            once(
                folder / "runs.json",
                f"{name}, seed {seed}",
                lambda k=kind, s=seed, r=rounds: measure(k, s, r, answers, arrays, test, folder),
            )
            for seed in range(count)
        ]
    results = {
        "settings": SETTINGS,
        "machine": machine(),
        "teacher": measure_reference(TEACHER, test),
        "references": {name: measure_reference(file, test) for name, file in REFERENCES.items()},
        "students": students,
    }
    write(RESULTS / "mlperf_tiny.json", json.dumps(results, indent=1) + "\n")
    insert(table(results), "docs/performance.md", "mlperf_tiny")
    draw("mlperf_tiny", results)
    print(table(results))


if __name__ == "__main__":
    app.run(main)
