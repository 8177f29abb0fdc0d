"""What importing the package and starting the command do to the process."""

import os
import pathlib
import subprocess
import sys

import pytest

from keras_distill import cli

ROOT = pathlib.Path(__file__).parents[2]
IMPORT = """
import os
import sys

def forbidden(*_):
    raise AssertionError("a file descriptor was changed")

def files():
    return [(f.st_dev, f.st_ino) for f in map(os.fstat, (0, 1, 2))]

environment, arguments = dict(os.environ), ["keras-distill"]
sys.argv[:] = arguments
before, streams, dup, dup2 = files(), (sys.stdin, sys.stdout, sys.stderr), os.dup, os.dup2
os.dup = os.dup2 = forbidden
sys.modules["jax"] = None  # TensorFlow would import it, which sets TF_CPP_MIN_LOG_LEVEL.
import keras_distill, keras_distill.cli
os.dup, os.dup2 = dup, dup2
assert files() == before
assert (sys.stdin, sys.stdout, sys.stderr) == streams
assert environment.get("TF_CPP_MIN_LOG_LEVEL") == os.environ.get("TF_CPP_MIN_LOG_LEVEL")
"""


def python(program, *arguments, **environment):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("TF_")}
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=clean | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.long
@pytest.mark.parametrize("level", ["", pytest.param("3", marks=pytest.mark.nightly)])
def test_importing_the_package_changes_no_file_descriptor(level):
    """Nor does it print: what TensorFlow says at its start is the command's business."""
    environment = {"TF_CPP_MIN_LOG_LEVEL": level} if level else {}
    process = python(IMPORT, **environment)
    assert process.returncode == 0, process.stderr


COMMAND = "import keras_distill_command as c; c.run()"
WITHOUT_TENSORFLOW = """
import sys
import time
import keras_distill_command

def forbidden(name, *_):
    if name.partition(".")[0] in ("tensorflow", "keras", "rich"):
        raise AssertionError(f"{name} is imported")

class Finder:
    find_spec = staticmethod(forbidden)

sys.meta_path.insert(0, Finder)
for arguments in (["--help"], ["--version"], *([name, "--help"] for name in sys.argv[1:])):
    sys.argv[1:] = arguments
    begin = time.process_time()
    try:
        keras_distill_command.run()
    except SystemExit as stopped:
        assert stopped.code == 0
    assert time.process_time() - begin < 1
"""


def test_help_of_every_command_imports_no_tensorflow():
    process = python(WITHOUT_TENSORFLOW, *cli.COMMANDS)
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    assert process.stdout.startswith("usage: keras-distill")
    for name in cli.COMMANDS:
        assert f"`keras-distill {name}`" in process.stdout


def test_wrong_flags_are_told_before_tensorflow_is_imported():
    process = python(COMMAND, "train", "--epoch=3")
    assert process.returncode == 2
    assert process.stderr.count("\n") == 1
    assert "Did you mean: epochs" in process.stderr


@pytest.mark.long
def test_the_command_holds_back_what_tensorflow_prints_while_it_starts(tmp_path):
    process = python(COMMAND, "inspect", str(tmp_path / "none.tflite"))
    assert process.returncode == 2
    assert process.stdout == ""
    assert process.stderr.count("\n") == 1
    assert "none.tflite" in process.stderr


@pytest.mark.long
def test_the_package_is_whole_once_its_names_are_used():
    program = """
import sys
import keras_distill_command
sys.argv[1:] = ["--version"]
try:
    keras_distill_command.run()
except SystemExit:
    pass
assert "tensorflow" not in sys.modules
import keras_distill
assert keras_distill.Distiller.__name__ == "Distiller"
assert keras_distill.data.load
assert "tuning" in dir(keras_distill)
"""
    process = python(program)
    assert process.returncode == 0, process.stderr


def test_what_was_held_back_is_printed_if_the_start_fails():
    program = """
import os
import keras_distill_command
keras_distill_command._defer_init("keras_distill")
import keras_distill.cli.messages as messages
with messages.held_back():
    os.write(2, b"held back")
    raise ImportError("no library")
"""
    process = python(program)
    assert process.returncode == 1
    assert "held back" in process.stderr
    assert "ImportError: no library" in process.stderr
