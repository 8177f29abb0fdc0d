"""The command line on a backend other than TensorFlow."""

import json

import numpy as np
import pytest
from backend_cases import data

from keras_distill import cli

NETS = """
import keras


def net(shape, outputs):
    return keras.Sequential([keras.Input(shape), keras.layers.Dense(outputs)])
"""
DATA = "--data=small.npz"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run that trained teacher and student, the working directory's own."""
    folder = tmp_path_factory.mktemp("command_line")
    (folder / "nets_of_backends.py").write_text(NETS)
    x, _, _ = data()
    np.savez(folder / "small.npz", x=x, y=x[:, :3].argmax(1))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        arguments = [
            DATA,
            "--batch_size=16",
            "--teacher=nets_of_backends:net",
            "--student=nets_of_backends:net",
        ]
        arguments += ["--epochs=2", "--learning_rate=0.1", "--output=run", "--verbosity=-1"]
        assert cli.main(["train", *arguments]) == 0
        yield folder / "run"


def test_train_and_evaluate(run, capsys):
    rows = json.loads((run / "comparison.json").read_text())["candidates"]
    assert [row["name"] for row in rows] == ["teacher", "student distilled"]
    assert len((run / "student.csv").read_text().splitlines()) == 3
    files = [str(run / "teacher.keras"), str(run / "student.keras")]
    assert cli.main(["evaluate", *files, DATA, "--json", "--verbosity=-1"]) == 0
    again = json.loads(capsys.readouterr().out)["candidates"]
    assert [row["accuracy"] for row in again] == [row["accuracy"] for row in rows]


@pytest.mark.nightly
def test_export(run):
    arguments = [str(run / "student.keras"), "--data=small.npz", "--verbosity=-1"]
    assert cli.main(["export", *arguments, "--quantization=int8", "--output=kit"]) == 0
    assert json.loads((run.parent / "kit" / "report.json").read_text())["quantization"] == "int8"
