"""What distillation gains on handwritten digits, over several seeds.

usage: python benchmarks/digits.py

The demo's teacher, student on labels and distilled student, and the distilled student as int8
files, on the digits that come with scikit-learn. Writes results/digits.json beside this file, and
the table in README.md.
"""

import json

import numpy as np
from common import RESULTS, gain, insert, machine, write
from pictures import draw

import keras_distill
from keras_distill.cli import demo

SEEDS = 10


def run(seed):
    """Accuracy of each candidate, and bytes of the files, for one seed."""
    x_train, y_train, test = demo.digits(seed)
    teacher, on_labels, distilled = demo.train_all(x_train, y_train, seed)
    candidates = {"teacher": teacher, "student on labels": on_labels, "distilled": distilled}
    for target in ("android", "micro"):
        candidates[f"distilled, int8 for {target}"] = keras_distill.tflite.convert(
            distilled, target=target, quantization="int8", calibration=x_train
        )
    result = keras_distill.evaluation.compare(candidates, test)
    return {
        row["name"]: {key: row[key] for key in ("accuracy", "agreement", "parameters", "bytes")}
        for row in result.rows
    }


def page(results):
    """The table and what it shows, as Markdown."""
    runs, settings = results["runs"], results["settings"]
    accuracy = {name: np.array([run[name]["accuracy"] for run in runs]) for name in runs[0]}
    rows = ["| model | accuracy, % | weights | bytes |", "| --- | --- | --- | --- |"]
    for name, values in accuracy.items():
        rows.append(
            f"| {name} | {100 * values.mean():.2f} ± {100 * values.std(ddof=1):.2f} "
            f"| {runs[0][name]['parameters']:,} | {max(run[name]['bytes'] for run in runs):,} |"
        )
    labels = accuracy["student on labels"]
    points, half, _ = gain(accuracy["distilled"], labels)
    share = points / (100 * (accuracy["teacher"] - labels).mean())
    rows += [
        "",
        f"Mean ± standard deviation over {settings['seeds']} seeds, each of which draws "
        f"{settings['training_images']} images to train on and holds out the rest; bytes of the "
        f"largest file. Distillation gains {points:.2f} ± {half:.2f} points (half the 95 % "
        f"interval of the paired differences) over labels alone, {100 * share:.0f} % of the gap to "
        "the teacher. Reproduce it with `make bench-digits`.",
    ]
    return "\n".join(rows)


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
    insert(page(results), "README.md", "digits")
    draw("digits", results)
    print(page(results))


if __name__ == "__main__":
    main()
