"""Pictures in, detections in their coordinates out: letterbox and rotation, on the JVM."""

import os
import pathlib
import shutil
import subprocess
import types
from importlib.resources import files

import numpy as np
import pytest

from keras_distill import detection

ANDROID = pathlib.Path(__file__).parents[1] / "tflite/android"
HEAD = detection.Head((4, 6), (2,), ['a"b', "$c"])
SOURCES = detection.BoxSources(HEAD)
#: A student that gives one box, and keeps what it was given.
STUDENT = """package org.example
import android.graphics.Bitmap
class Finder {
  class Result(val boxes: FloatArray, val scores: FloatArray, val labels: IntArray)
  fun run(bitmap: Bitmap): Result {
    val pixels = IntArray(24)
    bitmap.getPixels(pixels, 0, 6, 0, 0, 6, 4)
    for (row in 0 until 4) println(pixels.slice(row * 6 until row * 6 + 6).map { it and 255 })
    val boxes = floatArrayOf(1f, 0f, 2.5f, 9f, 0f, 0f, 0f, 0f)
    return Result(boxes, floatArrayOf(0.5f, 0f), intArrayOf(1, -1))
  }
}
fun main() {
  val wide = Bitmap(6, 3, IntArray(18) { it + 1 })
  println(Finder().detect(wide))
  println(Finder().detect(wide, 180))
  println(Finder().detect(Bitmap(4, 6, IntArray(24) { it + 1 }), 90))
  println(Finder().detect(Bitmap(4, 6, IntArray(24) { it + 1 }), 270))
  val drawn = Finder().draw(wide)
  println((0 until 3).map { y -> (0 until 6).map { x -> if (drawn.getPixel(x, y) < 0) 1 else 0 } })
  println("${wide.getPixel(1, 0)} ${android.graphics.Canvas.written}")
  println(Letterbox(640, 480).back(1f, 0f, 3f, 9f))
  println(Letterbox(640, 480, 90).back(1f, 0f, 3f, 9f))
  println("${Letterbox(640, 480, 90).scaledWidth} ${Letterbox(640, 480, 90).scaledHeight}")
  println(runCatching { Letterbox(6, 4, 45) }.exceptionOrNull()?.message)
}
"""


def artifact(outputs, shape=(1, 4, 6, 3)):
    ports = [types.SimpleNamespace(name=name, dtype=kind) for name, kind in outputs.items()]
    inputs = [types.SimpleNamespace(shape=shape)]
    return types.SimpleNamespace(ports=types.SimpleNamespace(inputs=inputs, outputs=ports))


FOUND = {"boxes": "float32", "scores": "float32", "labels": "int32"}


def test_files_that_find_nothing_themselves_are_refused():
    with pytest.raises(ValueError, match="the file finds boxes itself"):
        SOURCES.kotlin("org.example", "Finder", artifact({"classes": "int8", "boxes": "int8"}))
    with pytest.raises(ValueError, match="images of 4 x 6 pixels"):
        SOURCES.kotlin("org.example", "Finder", artifact(FOUND, (1, 8, 8, 3)))


def test_detections_are_those_of_the_upright_picture(tmp_path):
    compiler = os.environ.get("KOTLINC") or shutil.which("kotlinc")
    if not compiler or not shutil.which("java"):
        pytest.skip("name a Kotlin compiler in KOTLINC, and install a Java runtime")
    [(name, text)] = SOURCES.kotlin("org.example", "Finder", artifact(FOUND)).items()
    (tmp_path / name).write_text(text)
    (tmp_path / "Finder.kt").write_text(STUDENT)
    values = {"@PACKAGE@": "org.example", "@WIDTH@": "6", "@HEIGHT@": "4"}
    for stem in ("Inputs", "Letterbox"):
        text = (files("keras_distill.tflite.android") / f"templates/{stem}.kt").read_text()
        for name, value in values.items():
            text = text.replace(name, value)
        (tmp_path / f"{stem}.kt").write_text(text)
    stems = ("Detections", "Finder", "Inputs", "Letterbox")
    sources = [str(tmp_path / f"{stem}.kt") for stem in stems]
    jar = str(tmp_path / "program.jar")
    command = [
        compiler,
        "-Werror",
        *sources,
        str(ANDROID / "graphics.kt"),
        "-include-runtime",
        "-d",
        jar,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    done = subprocess.run(
        ["java", "-cp", jar, "org.example.FinderKt"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    box = "[Detection(label=$c, score=0.5, box=Box(left=1.0, top=0.0, right=2.5, bottom={}))]"
    wide = np.zeros((4, 6), int)
    wide[:3] = np.arange(1, 19).reshape(3, 6)
    turned = np.zeros((4, 6), int)
    turned[:3] = wide[:3][::-1, ::-1]
    tall = np.arange(1, 25).reshape(6, 4)
    blocks = [
        (wide, box.format("3.0")),
        (turned, box.format("3.0")),
        # Clockwise, and against it, as NumPy turns.
        (np.rot90(tall, -1), box.format("4.0")),
        (np.rot90(tall, 1), box.format("4.0")),
    ]
    expected = [line for pixels, found in blocks for line in (*map(str, pixels.tolist()), found)]
    # The box from (1, 0) to (2.5, 3) of a picture of 6 x 3, which itself stays as it is.
    expected += [*map(str, wide.tolist()), str([[0, 1, 1, 0, 0, 0]] * 3), "2 [$c 50 %]"]
    # 640 x 480 is scaled by 1/120, 480 x 640 by 1/160: (edge / scale), cut at the picture's edges.
    expected += [
        "Box(left=120.0, top=0.0, right=360.0, bottom=480.0)",
        "Box(left=160.0, top=0.0, right=480.0, bottom=640.0)",
        "4 3",
        "rotation must be 0, 90, 180 or 270, not 45",
    ]
    assert done.stdout.splitlines() == expected
