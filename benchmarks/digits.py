"""What distillation gains on handwritten digits, over several seeds.

usage: python benchmarks/digits.py

The demo's teacher, student on labels and distilled student, and the distilled student as int8
files, on the digits that come with scikit-learn. Writes results/digits.json beside this file, and
the table in README.md.
"""

import json

import numpy as np
from common import RESULTS, insert, machine, write
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


def summary(runs):
    """Mean and standard deviation over the seeds, and the gap that distillation recovered."""
    table = {}
    for name in runs[0]:
        accuracy = [100 * r[name]["accuracy"] for r in runs]
        table[name] = {
            "accuracy": round(float(np.mean(accuracy)), 2),
            "accuracy_std": round(float(np.std(accuracy, ddof=1)), 2),
            "parameters": runs[0][name]["parameters"],
            "bytes": runs[0][name]["bytes"],
        }
    labels = table["student on labels"]["accuracy"]
    gained = table["distilled"]["accuracy"] - labels
    return table, round(100 * gained / (table["teacher"]["accuracy"] - labels), 1)


def markdown(table, gap):
    rows = ["| model | accuracy, % | weights | bytes |", "| --- | --- | --- | --- |"]
    for name, row in table.items():
        rows.append(
            f"| {name} | {row['accuracy']:.2f} ± {row['accuracy_std']:.2f} "
            f"| {row['parameters']:,} | {row['bytes']:,} |"
        )
    rows.append("")
    rows.append(
        f"Mean ± standard deviation over {SEEDS} seeds, each of which draws {demo.TRAINING_IMAGES} "
        f"images to train on and holds out the rest. Distillation recovers {gap} % of the gap "
        "between the student on labels and the teacher. Reproduce it with `make bench-digits`."
    )
    return "\n".join(rows)


def main():
    runs = []
    for seed in range(SEEDS):
        runs.append(run(seed))
        print(
            f"seed {seed}:", {n: round(r["accuracy"], 4) for n, r in runs[-1].items()}, flush=True
        )
    table, gap = summary(runs)
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
        "summary": table,
        "gap_recovered_percent": gap,
        "runs": runs,
    }
    write(RESULTS / "digits.json", json.dumps(results, indent=2) + "\n")
    text = markdown(table, gap)
    insert(text, "README.md", "digits")
    draw("digits", results)
    print(text)


if __name__ == "__main__":
    main()
