"""What importing the package and starting the command do to the process."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
IMPORT = """
import os
import sys
import tempfile

def forbidden(*_):
    raise AssertionError("a file descriptor was changed")

environment, arguments = dict(os.environ), ["keras-distill"]
sys.argv[:] = arguments
before, dup, dup2 = os.fstat(2), os.dup, os.dup2
os.dup = os.dup2 = forbidden
import keras_distill
os.dup, os.dup2 = dup, dup2
after = os.fstat(2)
assert (before.st_dev, before.st_ino) == (after.st_dev, after.st_ino)
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


@pytest.mark.parametrize("level", ["", "3"])
def test_importing_the_package_changes_no_file_descriptor(level):
    environment = {"TF_CPP_MIN_LOG_LEVEL": level} if level else {}
    process = python(IMPORT, **environment)
    assert process.returncode == 0, process.stderr


def test_the_command_holds_back_what_tensorflow_prints_while_it_starts():
    process = python("import keras_distill_command as c; c.run()", "--help")
    assert process.returncode == 0
    assert process.stdout.startswith("usage: keras-distill")
    assert process.stderr == ""


def test_what_was_held_back_is_printed_if_the_start_fails():
    program = """
import os
import keras_distill_command
with keras_distill_command.held_back_messages():
    os.write(2, b"held back")
    raise ImportError("no library")
"""
    process = python(program)
    assert process.returncode == 1
    assert "held back" in process.stderr
    assert "ImportError: no library" in process.stderr
