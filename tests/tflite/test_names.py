"""Names that users give are safe in every language of a kit, and in TensorFlow."""

import shutil
import subprocess

import keras
import numpy as np
import pytest
from keras_distill.tflite import names

from keras_distill import tflite

KEYWORDS = ["class", "namespace", "xor_eq", "co_await"]
LIBRARY = ["log", "index", "y1", "time", "sinf", "lgammaf_r", "errno", "puts", "printf", "exp2l"]
HEADERS = ["math", "string", "stdio", "new", "arduino"]
KIT = ["setup", "loop", "arena", "interpreter", "delay", "test", "all", "main", "tflite", "std"]


@pytest.mark.parametrize("name", [*KEYWORDS, *LIBRARY, *HEADERS, *KIT, "Log", "size_t"])
def test_cpp_names_that_are_taken(name):
    assert names.cpp_identifier(name) == f"{name.lower()}_student"


@pytest.mark.parametrize("name", ["student", "digits", "wake_word", "model", "logs", "kws_int8"])
def test_cpp_names_that_are_free(name):
    assert names.cpp_identifier(name) == name


def test_cpp_names_compile(tmp_path):
    """Each as a namespace, beside the headers that a kit includes."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    headers = ("algorithm", "cmath", "cstdint", "cstdio", "cstdlib", "cstring", "ctime", "limits")
    lines = [f"#include <{header}>" for header in headers]
    taken = [*KEYWORDS, *LIBRARY, *HEADERS, *KIT, "3d scan", "a--b", ""]
    lines += [f"namespace {names.cpp_identifier(n)} {{ constexpr int kX = 1; }}" for n in taken]
    (tmp_path / "names.cc").write_text("\n".join(lines) + "\nint main() { return 0; }\n")
    for standard in ("c++17", "gnu++17"):
        subprocess.run(
            ["g++", f"-std={standard}", "-fsyntax-only", str(tmp_path / "names.cc")], check=True
        )


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("string", "StringStudent"),
        ("map", "MapStudent"),
        ("result", "ResultStudent"),
        ("main activity", "MainActivityStudent"),
        ("digits", "Digits"),
        ("my_string", "MyString"),
    ],
)
def test_kotlin_classes(name, safe):
    assert names.kotlin_class(name) == safe


def test_the_sample_activity_is_not_overwritten(tmp_path):
    student = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    artifact = tflite.convert(student)
    folder = artifact.save(tmp_path / "activity", name="main activity")
    sources = folder / "app"
    activity, student = "app/src/main/kotlin", "student/src/main/kotlin"
    assert "class MainActivity : Activity" in (sources / activity / "MainActivity.kt").read_text()
    assert (
        "class MainActivityStudent(" in (sources / student / "MainActivityStudent.kt").read_text()
    )


@pytest.mark.parametrize(
    ("name", "given", "result"),
    [
        ("2nd", "input_2nd", "output_2nd"),
        ("class", "class_input", "class_output"),
        ("self", "self_input", "self_output"),
        ("3d_scan", "input_3d_scan", "output_3d_scan"),
    ],
)
def test_names_of_layers_and_inputs(name, given, result):
    x = np.random.default_rng(0).standard_normal((8, 4)).astype("float32")
    inputs = keras.Input((4,), name=name)
    y = keras.layers.Dense(3, name="4th", activation="relu")(inputs)
    student = keras.Model(inputs, keras.layers.Dense(2, name=f"{name}_")(y), name="5th")
    artifact = tflite.convert(student, "micro", "int8", calibration=x)
    assert [port.name for port in artifact.ports.inputs] == [given]
    assert [port.name for port in artifact.ports.outputs] == [result]
    expected = student.predict(x, verbose=0)
    assert np.sqrt(np.mean((artifact.predict(x) - expected) ** 2)) < 0.05 * expected.std()
