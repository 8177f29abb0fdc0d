"""What the recorded examples show, as one table and one picture.

usage: python benchmarks/examples.py

Reads examples/results/*.json, which examples/record.py writes, and results/ beside this file for
those that are benchmarks; puts the table into README.md.
"""

import json
import sys

from common import RESULTS as BENCHMARKS
from common import ROOT, insert
from pictures import draw

from keras_distill import _markdown

sys.path.insert(0, str(ROOT / "examples"))
from record import alone, statistics

RESULTS = ROOT / "examples" / "results"
# The task of each example, in the order of the table, and what its figures are.
TASKS = {
    "text_classification": "news topics, AG News: accuracy",
    "news_topics": "news topics, AG News with 200 labels, a BERT for a teacher: accuracy",
    "tabular_regression": "prices, California housing: R²",
    "spoken_digits": "spoken digits, FSDD with 270 labels: accuracy",
    "activity_recognition": "activities, UCI HAR with three people's labels: accuracy",
    "language_identification": "language of three words, Multi30k with 200 labels: accuracy",
    "keyboard": "next words of captions, Multi30k: keystrokes saved",
    "translation": "English to German, Multi30k: BLEU",
    "voice_activity": "voice activity in noise, FSDD: area under ROC",
    "wake_word": "wake word, heard at six false accepts an hour",
    "connected_digits": "connected digits, FSDD: 1 - word error rate",
    "detection": "blood cells found, BCCD with 8 labeled images: mAP",
    "segmentation": "street scenes, CamVid with 10 painted frames: mean IoU",
    "blood_cells": "blood cells named, BCCD with 4 labeled images: mean recall",
    "representations": "clothes, Fashion-MNIST, 250 labels for a taught backbone: accuracy",
    "another_domain": "digits of another domain, without labels: accuracy",
    "gan": "clothes drawn by a GAN, Fashion-MNIST: Fréchet distance, less is better",
    "vae": "clothes drawn by an autoencoder, Fashion-MNIST: Fréchet distance, less is better",
    "diffusion": "clothes drawn by diffusion in 4 steps, not 32: Fréchet distance, less is better",
    "images": "clothes, Fashion-MNIST with 1,000 labels: accuracy",
    "demo": "handwritten digits, the demo: accuracy",
}


def recorded():
    """The results of each example, as its JSON holds them, and of the benchmarks that are one."""

    def read(folder, name):
        return json.loads((folder / f"{name}.json").read_text())

    images = read(BENCHMARKS, "methods")["files"]
    benchmarks = {
        "images": {"command": "make bench-methods", **statistics(images), "runs": images},
        "demo": of_demo(read(BENCHMARKS, "digits")),
    }
    return {name: benchmarks.get(name) or read(RESULTS, name) for name in TASKS}


def of_demo(digits):
    """What the benchmark of the demo's models recorded, in the form of an example's results."""
    names = {
        "teacher": "teacher",
        "student on labels": "student on labels",
        "student distilled": "distilled",
        "distilled, int8": "distilled, int8 for micro",
    }
    runs = [
        {key: run[name]["accuracy"] for key, name in names.items()}
        | {"bytes": run["distilled, int8 for micro"]["bytes"]}
        for run in digits["runs"]
    ]
    return {"command": "make bench-digits", **statistics(runs), "runs": runs}


def page(results):
    """The table and how to read it, as Markdown."""
    rows = []
    for name, result in results.items():
        mean, gain = result["mean"], result["gain"]
        half = f"{gain['half_interval']:.3f}"
        rows.append((
            TASKS[name],
            f"{mean['teacher']:.3f}",
            f"{mean[alone(mean)]:.3f}",
            f"{mean['student distilled']:.3f}",
            f"{mean['distilled, int8']:.3f}",
            f"{mean['bytes']:,.0f}",
            f"{gain['mean']:+.3f} ± {half}",
            f"{gain['share_of_gap']:.0%}",
            str(len(result["runs"])),
            f"`{result['command'].split(' --note ')[0].removeprefix('python examples/')}`",
        ))  # fmt: skip
    header = [
        "task, test data", "teacher", "student alone", "distilled", "int8 file", "bytes",
        "gain over it alone", "of the gap", "seeds", "command (`record.py` is in `examples/`)",
    ]  # fmt: skip
    return "\n".join([
        _markdown.table(header, rows),
        "",
        "Means over seeds. The file's figures are measured in its runtime. The gain is the file's "
        "over the student without the teacher, on labels where there are any: the mean of the "
        "differences of each seed with half its 95 % interval (Student's t); of distances, which "
        "are better if less, what they fall by. The gap is the teacher's lead over that student. "
        "[Why each pays](docs/examples.md), and [when distillation doesn't help]"
        "(docs/when_not.md).",
    ])  # fmt: skip


def main():
    results = recorded()
    insert(page(results), "README.md", "examples")
    draw("examples", results)
    print(page(results))


if __name__ == "__main__":
    main()
