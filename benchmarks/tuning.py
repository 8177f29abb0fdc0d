"""Searches temperature and alpha on activity recognition, against their defaults.

    python benchmarks/tuning.py

Smartphone movements (UCI HAR): the teacher and the student learn from 17 people, temperature and
alpha are chosen on 4 other people of the training half, and the defaults and what was chosen are
then trained from new seeds and measured once on the 9 people of the official test half.

Writes `benchmarks/results/tuning.json`, and what it found into `docs/evaluation.md`. A search that
is stopped goes on where it was.
"""

import json
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from absl import app, flags
from common import DATA, RESULTS, ROOT, gain, insert, machine, uci_har, write
from pictures import draw

import keras_distill
from keras_distill import _markdown, tuning

FLAGS = flags.FLAGS
flags.DEFINE_string("data", DATA, "Folder that holds UCI HAR.")
flags.DEFINE_string("journal", str(ROOT / "runs" / "tuning.journal"), "File of the search.")
flags.DEFINE_integer("trials", 20, "Number of trials.")
flags.DEFINE_integer("seeds", 5, "Number of runs on which defaults and choice are compared.")

EPOCHS, BATCH_SIZE = 8, 128
DEFAULT = {"temperature": 4.0, "alpha": 0.1}
SPACE = {"temperature": (1.0, 16.0, "log"), "alpha": (0.0, 1.0)}
CLASSES = ["walking", "upstairs", "downstairs", "sitting", "standing", "lying"]
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def read(folder):
    """Training, validation and test data; people are in one of them alone."""
    x, y, subject, test = uci_har(folder)
    validation = ~test & np.isin(subject, np.unique(subject[~test])[-4:])
    parts = (~test & ~validation, validation, test)
    return [(x[part], y[part]) for part in parts]


def network(channels):
    """Two strided convolutions over time, and a classifier."""
    layers = [
        keras.layers.Conv1D(channels, 5, strides=2, activation="relu"),
        keras.layers.Conv1D(channels, 5, strides=2, activation="relu"),
        keras.layers.GlobalAveragePooling1D(),
        keras.layers.Dense(len(CLASSES)),
    ]
    return keras.Sequential([keras.Input((128, 6)), *layers])


def fit(model, data, epochs=EPOCHS):
    model.fit(*data, epochs=epochs, batch_size=BATCH_SIZE, verbose=0)
    return model


def main(_):
    train, validation, test = read(FLAGS.data)
    keras.utils.set_random_seed(0)
    teacher = network(48)
    teacher.compile("adam", LOSS)
    fit(teacher, train, epochs=12)

    def build(temperature, alpha):
        losses = keras_distill.losses.SoftTargets(temperature)
        distiller = keras_distill.Distiller(network(8), teacher, losses, alpha=alpha)
        distiller.compile(keras.optimizers.Adam(5e-3), LOSS, metrics=["accuracy"])
        return distiller

    search = tuning.tune(
        build, train, validation, SPACE, trials=FLAGS.trials, epochs=EPOCHS, start=DEFAULT,
        batch_size=BATCH_SIZE, journal=FLAGS.journal,
    )  # fmt: skip
    print(search)

    def students(settings):
        found = []
        for seed in range(100, 100 + FLAGS.seeds):
            keras.utils.set_random_seed(seed)
            found.append(fit(build(**settings), train).student)
        return found

    comparison = keras_distill.evaluation.compare(
        {
            "teacher": teacher,
            "student on labels": students({"temperature": 1.0, "alpha": 1.0}),
            "defaults": students(DEFAULT),
            "chosen": students(search.best),
        },
        test,
        class_names=CLASSES,
    )
    trials = [
        {"values": t.params, "state": t.state.name, "val_accuracy": t.value}
        for t in search.study.trials
    ]
    results = {
        "settings": {"epochs": EPOCHS, "trials": len(trials), "seeds": FLAGS.seeds},
        "validation accuracy": {"defaults": search.start, "chosen": search.value},
        "defaults": DEFAULT,
        "best": search.best,
        "trials": trials,
        "machine": machine(),
        **comparison.to_dict(),
    }
    write(RESULTS / "tuning.json", json.dumps(results, indent=1) + "\n")
    insert(page(results), "docs/evaluation.md", "tuning")
    draw("tuning", results)
    print(comparison.markdown(), page(results), sep="\n")


def page(results):
    """What the search found, in a paragraph and a table."""
    rows = {row["name"]: row for row in results["candidates"]}
    accuracy = {name: rows[name]["run_values"]["accuracy"] for name in list(rows)[1:]}
    points, half, verdict = gain(accuracy["chosen"], accuracy["defaults"])
    over_labels = "{:+.2f} ± {:.2f} points: {}".format(
        *gain(accuracy["chosen"], accuracy["student on labels"])
    )
    cells = [("teacher", f"{rows['teacher']['accuracy']:.2%}")]
    cells += [
        (name, f"{np.mean(values):.2%} ± {np.std(values, ddof=1):.2%}")
        for name, values in accuracy.items()
    ]
    settings, best = results["settings"], results["best"]
    validation = results["validation accuracy"]
    lines = [
        f"On activity recognition from a phone's sensors (UCI HAR), for a student of "
        f"{rows['chosen']['parameters']} parameters and {settings['epochs']} epochs, "
        f"{settings['trials']} trials found a temperature of {best['temperature']:.2f} and an "
        f"alpha of {best['alpha']:.2f} ({validation['chosen']:.2%} on validation data; the "
        f"defaults {validation['defaults']:.2%}). Test accuracy, trained anew with "
        f"{settings['seeds']} other seeds, mean ± standard deviation:",
        "",
        _markdown.table(["", "accuracy"], cells),
        "",
        f"Chosen over defaults: {points:+.2f} ± {half:.2f} points (half the 95 % interval of the "
        f"paired differences): {verdict}. Chosen over labels alone: {over_labels}. Reproduce it "
        "with `make bench-tuning`.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    app.run(main)
