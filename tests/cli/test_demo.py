"""The demo as a user runs it, with fewer epochs: what it says, and what it leaves."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from keras_distill import tflite

ROOT = pathlib.Path(__file__).parents[2]
PROGRAM = """
import keras_distill_command
keras_distill_command._defer_init("keras_distill")
import keras_distill.cli.messages as messages
with messages.held_back():
    from keras_distill.cli import demo
demo.EPOCHS = 2
keras_distill_command.run()
"""


@pytest.mark.long
def test_the_demo_says_what_it_does_and_nothing_else(workplace):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TF_")}
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM, "demo", "--output=demo", "--json"],
        env=environment | {"COLUMNS": "80", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    rows = {row["name"]: row for row in json.loads(process.stdout)["candidates"]}
    assert rows["teacher"]["accuracy"] > 0.5
    assert (
        rows["micro, int8"]["bytes"]
        == (workplace / "demo/micro-int8/student.tflite").stat().st_size
    )
    assert tflite.inspect(workplace / "demo/micro-int8/student.tflite").refusals["micro"] == []

    said = [line.strip() for line in process.stderr.splitlines() if line.strip()]
    known = [
        "scikit-learn's handwritten digits: ",
        *("Teacher  ", "Student on labels alone", "Student distilled"),
        "Exported for android as float32",
        "Exported for android as int8",
        "Exported for micro as int8",
        "accuracy  agreement  weights",
        "─────",
        *("teacher ", "student on labels ", "student distilled ", "android, ", "micro, "),
        *("On 1,397 held-out digits.", "multiply-accumulates for", "Arena: "),
        "Models, files and what firmware and apps need beside them: demo",
    ]
    assert [line for line in said if not line.startswith(tuple(known))] == []
    assert re.search(r"Student distilled .* 2/2", process.stderr)
