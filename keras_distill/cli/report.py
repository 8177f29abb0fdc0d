"""`keras-distill report`: a run and its files as one HTML page with tables and pictures.

  keras-distill report runs/train-20260101-120000 micro=firmware/student.tflite --output=report

Compares the models of the run, and any NAME=FILE beside them, on the run's own test data, and
writes report.html (one file that needs nothing else), report.md and report.json.
"""

import csv
import pathlib
from collections.abc import Sequence
from typing import Any

from absl import flags as absl_flags
from rich.console import Console

from keras_distill.cli import evaluate, models, runs

CANDIDATES = {
    "teacher": "teacher.keras",
    "student on labels": "baseline.keras",
    "student distilled": "student.keras",
}


def main(
    flags: absl_flags.FlagValues, arguments: Sequence[str], console: Console
) -> dict[str, Any]:
    """Writes the report of the run."""
    if not arguments:
        raise ValueError("name the run: keras-distill report FOLDER.")
    folder = pathlib.Path(arguments[0])
    settings = runs.settings(folder, "train")
    files = {name: folder / file for name, file in CANDIDATES.items()}
    if models.is_file(settings.teacher):
        files["teacher"] = pathlib.Path(settings.teacher)
    if not files["student distilled"].is_file():
        raise ValueError(f"the run in {folder} isn't finished: --resume it first.")
    named = [f"{name}={file}" for name, file in files.items() if file.exists()]
    comparison = evaluate.compare(settings, [*named, *arguments[1:]], flags.latency_runs)
    written = comparison.report(
        pathlib.Path(flags.output or folder / "report"),
        title=flags.title or folder.name,
        histories={
            name: _history(path)
            for name, file in CANDIDATES.items()
            if (path := (folder / file).with_suffix(".csv")).is_file()
        },
        settings={
            name: settings[name].value
            for name in sorted(settings)
            if name not in runs.MOMENTARY and settings[name].value not in (None, [])
        },
    )
    console.print(f"Written to {written}")
    return {"folder": str(written)}


def _history(path: pathlib.Path) -> dict[str, list[float]]:
    """The history of a training by metric, of which Keras' logger writes one row for each epoch."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in rows[0] if name != "epoch"}
