"""What distillation gains on handwritten digits, over several seeds.

usage: python benchmarks/digits.py

The demo's teacher, student on labels and distilled student, and the distilled student as int8
files, on the digits that come with scikit-learn; and the same student distilled with the same
number of steps on more images, whose labels nobody knows. Writes results/digits.json beside this
file, and the table in docs/examples.md; `make bench-examples` puts its line into the README.
"""

import json
import math

import numpy as np
import tensorflow as tf
from common import RESULTS, gain, insert, machine, write
from pictures import draw

import keras_distill
from keras_distill import _markdown
from keras_distill.cli import demo

SEEDS = 10
UNLABELED = 700
MORE = f"distilled, with {UNLABELED} unlabeled images"


def run(seed):
    """Accuracy of each candidate, and bytes of the files, for one seed."""
    x, y, (others, classes) = demo.digits(seed)
    unlabeled, test = others[:UNLABELED], (others[UNLABELED:], classes[UNLABELED:])
    teacher, on_labels, distilled = demo.train_all(x, y, seed)
    more = distilled_on_more(teacher, x, y, unlabeled, seed)
    candidates = {
        "teacher": teacher, "student on labels": on_labels, "distilled": distilled, MORE: more
    }  # fmt: skip
    for target in ("android", "micro"):
        candidates[f"distilled, int8 for {target}"] = keras_distill.tflite.convert(
            distilled, target=target, quantization="int8", calibration=x
        )
    result = keras_distill.evaluation.compare(candidates, test)
    return {
        row["name"]: {key: row[key] for key in ("accuracy", "agreement", "parameters", "bytes")}
        for row in result.rows
    }


def distilled_on_more(teacher, x, y, unlabeled, seed):
    """The student that starts and trains as the demo's, with images without labels beside."""
    _, _, student = demo.make_models(seed)
    images = np.concatenate([x, unlabeled])
    labels = np.concatenate([y, np.full(len(unlabeled), -1)])
    images, labels = demo.shifted(images, labels, seed)
    data = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(len(labels), seed=seed)
    distiller = keras_distill.Distiller(
        student, teacher, keras_distill.losses.SoftTargets(demo.TEMPERATURE), alpha=demo.ALPHA,
        missing_label=-1,
    )  # fmt: skip
    steps = math.ceil(len(x) * (demo.COPIES + 1) / demo.BATCH_SIZE)
    demo.compile_for(distiller, steps)
    data = data.repeat().batch(demo.BATCH_SIZE).prefetch(2)
    distiller.fit(data, epochs=demo.EPOCHS, steps_per_epoch=steps, verbose=0)
    return student


def page(results):
    """The table and what it shows, as Markdown."""
    runs, settings = results["runs"], results["settings"]
    accuracy = {name: np.array([run[name]["accuracy"] for run in runs]) for name in runs[0]}
    rows = [
        (
            name,
            f"{100 * values.mean():.2f} ± {100 * values.std(ddof=1):.2f}",
            f"{runs[0][name]['parameters']:,}",
            f"{max(run[name]['bytes'] for run in runs):,}",
        )
        for name, values in accuracy.items()
    ]
    table = _markdown.table(["model", "accuracy, %", "weights", "bytes"], rows)
    labels = accuracy["student on labels"]
    gap = 100 * (accuracy["teacher"] - labels).mean()
    gains = []
    for name in ("distilled", MORE):
        points, half, _ = gain(accuracy[name], labels)
        gains.append(f"{points:.2f} ± {half:.2f} points")
        gains.append(f"{100 * points / gap:.0f} % of the gap to the teacher")
    lines = [
        table,
        "",
        f"Mean ± standard deviation over {settings['seeds']} seeds, each of which draws "
        f"{settings['training_images']} images to train on, {settings['unlabeled_images']} whose "
        f"labels aren't used, and holds out the other {settings['held_out']}; bytes of the largest "
        f"file. Distillation gains {gains[0]} (half the 95 % interval of the paired differences) "
        f"over labels alone, {gains[1]}; with the unlabeled images, in as many steps, {gains[2]}, "
        f"{gains[3]}. Reproduce it with `make bench-digits`.",
    ]
    return "\n".join(lines)


def main():
    runs = []
    for seed in range(SEEDS):
        runs.append(run(seed))
        print(
            f"seed {seed}:", {n: round(r["accuracy"], 4) for n, r in runs[-1].items()}, flush=True
        )
    settings = {
        "seeds": SEEDS,
        "epochs": demo.EPOCHS,
        "batch_size": demo.BATCH_SIZE,
        "training_images": demo.TRAINING_IMAGES,
        "unlabeled_images": UNLABELED,
        "held_out": len(demo.digits()[2][1]) - UNLABELED,
        "shifted_copies": demo.COPIES,
        "temperature": demo.TEMPERATURE,
        "alpha": demo.ALPHA,
    }
    results = {
        "settings": settings,
        "machine": machine(),
        "runs": runs,
    }
    write(RESULTS / "digits.json", json.dumps(results, indent=2) + "\n")
    insert(page(results), "docs/examples.md", "digits")
    draw("digits", results)
    print(page(results))


if __name__ == "__main__":
    main()
