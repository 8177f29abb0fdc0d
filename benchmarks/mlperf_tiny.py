"""MLPerf Tiny's image classification: its ResNet-8, taught by its larger model, in 8 bits.

    python benchmarks/mlperf_tiny.py

The student is the network of MLPerf Tiny's reference (CIFAR-10, 78 thousand weights), which was
trained on labels for 500 epochs. The teacher is the benchmark's larger `.tflite`, run in LiteRT; it
answers once for a few crops and flips of each training image. The student trains on these stored
views, in rounds that each begin with the first learning rate again (warm restarts,
arXiv:1608.03983), so that a longer run goes on from a shorter one, for all students or the first
ones: `--epochs=60,90,200 --students=3,1,1`. After a round it is quantized twice: after training,
and while distilled for a few epochs more. The test set is looked at by these files alone.
Writes `benchmarks/results/mlperf_tiny.json`, and the table in `docs/performance.md`. A run that is
stopped goes on where it was; what is done is in `--runs`.

TensorFlow's convolutions are faster on some processors with `TF_ENABLE_ONEDNN_OPTS=1`.
"""

import json
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags
from common import DATA, RESULTS, ROOT, cifar10, insert, machine, once, runs_of, write
from int8 import accuracy, freeze_last
from pictures import draw
from step_time import resnet

import keras_distill
from keras_distill import quantization, teachers, tflite

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "data", DATA, "Folder that holds cifar10/ and mlperf_tiny/ic/; what it lacks is downloaded."
)
flags.DEFINE_string("runs", str(ROOT / "runs" / "mlperf_tiny"), "Folder for all that is done.")
flags.DEFINE_list("epochs", "60,90", "Epochs of each round of the float students' training.")
flags.DEFINE_list("students", "1,1", "Number of students of each round: the first ones go on.")

SETTINGS = {
    "views": 8,
    "augmentation": "crops of the image with 4 pixels around it, flips",
    "temperature": 4.0,
    "alpha": 0.1,
    "batch_size": 128,
    "optimizer": "SGD, 0.05, momentum 0.9 of Nesterov, weight decay 1e-3, cosine decay to 0",
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
    teacher = teachers.LiteRT(
        reference(TEACHER), preprocess=lambda x: x * 255, from_logits=False, name="larger"
    )
    return teachers.store(
        teacher, train, folder / "answers", views=SETTINGS["views"], augment=view, dtype="float32"
    )


def fit(student, answers, train, rate, epochs, seed, folder=None, callbacks=()):
    """Distils; goes on from `folder` if a run was stopped."""
    data = answers.attach(train, seed=seed)
    data = data.shuffle(20_000, seed=seed).batch(SETTINGS["batch_size"], drop_remainder=True)
    schedule = keras.optimizers.schedules.CosineDecay(rate, epochs * len(data))
    distiller = keras_distill.Distiller(
        student,
        answers,
        keras_distill.losses.SoftTargets(SETTINGS["temperature"]),
        alpha=SETTINGS["alpha"],
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


def trained(seed, rounds, answers, train, folder):
    """The float student, trained once and kept in `folder` after each round."""
    keras.utils.set_random_seed(seed)
    student, _ = resnet((32, 32, 3), 1, "resnet8")
    name = f"seed_{seed}_epochs"
    for epochs in rounds:
        name += f"_{epochs}"
        path = folder / f"{name}.keras"
        if path.exists():
            student = keras.saving.load_model(path)
        else:
            fit(student, answers, train, 0.05, int(epochs), seed, folder / f"backup_{name}")
            student.save(path)
    return student


def aware(student, answers, train, calibration, seed):
    """The student, distilled on with the rounding of int8; ranges are fixed for the last epoch."""
    result = quantization.quantize_aware(student, calibration)
    epochs = SETTINGS["aware_epochs"]
    callbacks = [freeze_last(result, epochs)]
    fit(result, answers, train, SETTINGS["aware_rate"], epochs, seed, callbacks=callbacks)
    return result


def measure(seed, rounds, answers, arrays, test, folder):
    """Test accuracy and size of the files of one student after some rounds of training."""
    train = tf.data.Dataset.from_tensor_slices(arrays)
    student = trained(seed, rounds, answers, train, folder)
    calibration = arrays[0][:1000].astype("float32") / 255
    after = aware(student, answers, train, calibration, seed)
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
    lines = ["| ResNet-8 | students | test accuracy | bytes |", "| --- | --- | --- | --- |"]
    others = {"the teacher: the larger model, float32": results["teacher"]} | results["references"]
    for name, run in others.items():
        lines.append(f"| {name} | | {100 * run['accuracy']:.2f} | {run['bytes']:,} |")
    for rounds, runs in results["students"].items():
        for name in runs[0]:
            values = [100 * run[name]["accuracy"] for run in runs]
            spread = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
            lines.append(
                f"| distilled, {rounds}, {name} | {len(runs)} | {np.mean(values):.2f}{spread} "
                f"| {runs[0][name]['bytes']:,} |"
            )
    settings = results["settings"]
    lines += [
        "",
        f"CIFAR-10, 10,000 test images, files in LiteRT. The reference trained on labels for 500 "
        f"epochs, the students on {settings['views']} stored views of each image; the aware ones "
        f"for {settings['aware_epochs']} more than the row says.",
    ]
    return "\n".join(lines)


def main(_):
    if len(FLAGS.students) != len(FLAGS.epochs):
        raise ValueError(
            "Say how many students each round has: --epochs and --students of one length. "
            f"Received: --epochs={','.join(FLAGS.epochs)} --students={','.join(FLAGS.students)}"
        )
    folder = runs_of(FLAGS.runs, SETTINGS)
    arrays, test = cifar10(FLAGS.data)
    answers = stored_answers(tf.data.Dataset.from_tensor_slices(arrays), folder)
    students = {}
    for number, count in enumerate(FLAGS.students, 1):
        rounds = FLAGS.epochs[:number]
        name = f"{' + '.join(rounds)} epochs"
        students[name] = [
            once(
                folder / "runs.json",
                f"{name}, seed {seed}",
                lambda s=seed, r=rounds: measure(s, r, answers, arrays, test, folder),
            )
            for seed in range(int(count))
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
