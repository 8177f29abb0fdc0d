"""The kit's Kotlin, compiled, and run on devices made up."""

import os
import pathlib
import shutil
import subprocess

import keras
import numpy as np
import pytest
import zoo
from keras_distill.tflite import runtimes

from keras_distill import tflite

HERE = pathlib.Path(__file__).parent / "android"
#: Classes of the kit's own tests and of ours, in the package of the kit.
TESTS = ("PlacementTest", "InputsTest", "StudentTest", "DeviceTest")


@pytest.fixture(scope="module")
def kotlinc():
    """A Kotlin compiler, which needs a Java runtime."""
    compiler = os.environ.get("KOTLINC") or shutil.which("kotlinc")
    if not compiler or not shutil.which("java"):
        pytest.skip("name a Kotlin compiler in KOTLINC, and install a Java runtime")
    return compiler


#: Names that a Kotlin string has to escape.
STREETS = ["sky", 'the "road"', "$car"]


def streets():
    """A class for each of 2 x 3 fields of a picture."""
    image = keras.Input((4, 6, 3), name="image")
    return keras.Model(image, keras.layers.Conv2D(3, 2, strides=2, name="scores")(image))


@pytest.fixture(scope="module")
def kits(kotlinc, converted, student, split, tmp_path_factory):
    """Folders of kits by name, with ports of every kind."""
    x = split[0][0][:50]
    folder = tmp_path_factory.mktemp("kits")
    artifacts = {
        "my_digits": converted("android", "float16"),
        "bytes": tflite.convert(
            student, quantization="int8", io="uint8", calibration=(x * 255).astype("uint8"),
            preprocessing=keras.layers.Rescaling(1 / 255), postprocessing="softmax",
        ),
        "object": tflite.convert(student, quantization="int8", io="int8", calibration=x),
        "classes": tflite.convert(student, postprocessing="argmax"),
        "several": tflite.convert(zoo.STUDENTS["several"]()),
        "embedding": tflite.convert(zoo.STUDENTS["embedding"]()),
        "streets": tflite.convert(streets(), labels=STREETS),
        "lanes": tflite.convert(streets(), labels=STREETS, postprocessing="argmax"),
    }  # fmt: skip
    for name, artifact in artifacts.items():
        digits = name == "my_digits"
        artifact.save(
            folder / name,
            name,
            package="org.example.digits" if digits else f"org.example.{name}_kit",
            normalization=(0, 16) if digits else (1, 2),
            variants=[converted("android", "int8")] if digits else (),
        )
    return {name: (artifact, folder / name) for name, artifact in artifacts.items()}


def sources(kits):
    """The Kotlin sources of kits, without their tests."""
    return [
        str(path)
        for _, folder in kits.values()
        for path in sorted((folder / "app").rglob("*.kt"))
        if "test" not in path.parts
    ]


def compiled(kotlinc, files, target, *options):
    command = [kotlinc, "-Werror", *files, *options, "-d", str(target)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(scope="module")
def program(kotlinc, kits, tmp_path_factory):
    """All of it in one run of the compiler, which is slow to start."""
    folder = tmp_path_factory.mktemp("program")
    for name, (artifact, kit) in kits.items():
        (folder / name).write_text(vectors(artifact, *normalization(name)))
        assert (kit / "app/student/consumer-rules.pro").exists()
    (folder / "Main.kt").write_text(main(kits, folder))
    files = [*sources(kits), *map(str, sorted(HERE.glob("*.kt"))), str(folder / "Main.kt")]
    tests = kits["my_digits"][1] / "app/student/src/test/kotlin"
    files += map(str, sorted(tests.glob("*.kt")))
    return compiled(kotlinc, files, folder / "program.jar", "-include-runtime")


def normalization(name):
    return (0, 16) if name == "my_digits" else (1, 2)


def main(kits, folder):
    """A program that runs the vectors of each kit, and prints a line for each."""
    lines = []
    for name, (_, kit) in kits.items():
        package = "digits" if name == "my_digits" else f"{name}_kit"
        [source] = [p for p in kit.glob("*.kt") if "SIGNATURE =" in p.read_text()]
        made = f"org.example.{package}.{source.stem}(android.content.Context())"
        lines += [
            "  com.google.ai.edge.litert.Device.thread = null",
            f'  {made}.use {{ student -> println("{name}: " + '
            f'vectors.run("{folder / name}") {{ student.run(it) }}) }}',
        ]
    assets = ", ".join(
        f'"{path.name}"' for _, kit in kits.values() for path in kit.glob("*.tflite")
    )
    lines.insert(0, f"  android.content.res.AssetManager.names = setOf({assets})")
    return "package kits\n\nfun main() {\n" + "\n".join(lines) + "\n}\n"


def vectors(artifact, mean, std):
    """Values given to the class, what the file must get for them and computes, what comes back."""
    rng = np.random.default_rng(0)
    interpreter = runtimes.open_file(artifact.tflite, "litert")
    blocks = []
    for _ in range(3):
        lines, arrays = [], []
        for port in artifact.ports.inputs:
            shape = [size or 1 for size in port.shape]
            plain = port.dtype != "float32" and not port.scale
            plain = plain or (port.scale, port.zero_point) == (1.0, 0)
            high = 2 if port.dtype == "bool" else 8
            given = rng.integers(0, high, shape).astype("float32")
            given = given if plain else given + rng.random(shape, "float32")
            value = given if plain else (given - np.float32(mean)) / np.float32(std)
            arrays.append(port.quantize(value) if port.scale else value.astype(port.dtype))
            lines += [line("given", port.name, given), line("written", port.name, arrays[-1])]
        for port, array in zip(artifact.ports.outputs, interpreter.run(arrays), strict=True):
            expected = np.asarray(port.dequantize(array), "float32")
            lines += [line("computed", port.name, array), line("expected", port.name, expected)]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def line(role, name, array):
    return " ".join([role, name, str(array.dtype), *map(str, array.ravel().tolist())])


def java(program, name, *arguments):
    command = ["java", "-cp", str(program), name, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_class_runs_on_devices_with_and_without_accelerators(program):
    """Among them: an NPU asked for without one ends in an exception, or in a stated fallback."""
    lines = java(program, "org.junit.JunitKt", *(f"org.example.digits.{name}" for name in TESTS))
    assert [x for x in lines if not x.endswith(": passed")] == []
    assert len(lines) == 19
    for name in ("DeviceTest", "PlacementTest"):
        assert any(f"{name}.npuWithoutNpu" in line for line in lines)


def test_class_hands_the_file_what_python_would(program, kits):
    """Normalization and quantization, bit for bit, and outputs back."""
    assert java(program, "kits.MainKt") == [f"{name}: []" for name in kits]


def test_class_maps_are_those_of_the_upright_picture(program, kits):
    lines = java(program, "org.junit.JunitKt", "org.example.streets_kit.ClassMapTest")
    assert [x for x in lines if not x.endswith(": passed")] == []
    assert len(lines) == 4
    for name in ("streets", "lanes"):
        app = kits[name][1] / "app"
        picture = keras.utils.load_img(app / "app/src/main/assets/sample.png")
        assert picture.size == (6, 4)
        assert (
            "show(it, column); prove(it)"
            in (app / "app/src/main/kotlin/MainActivity.kt").read_text()
        )
    plain = kits["my_digits"][1]
    assert not [
        path for name in ("ClassMap", "Letterbox", "Pictures") for path in plain.rglob(f"{name}.kt")
    ]
    assert "use { prove(it) }" in (plain / "app/app/src/main/kotlin/MainActivity.kt").read_text()


def test_kotlin_compiles_against_litert(kotlinc, kits, tmp_path):
    """The stand-in of LiteRT's API says what LiteRT's own sources say."""
    litert = os.environ.get("LITERT_ROOT")
    if not litert:
        pytest.skip("name LiteRT's source tree in LITERT_ROOT")
    api = pathlib.Path(litert, "litert/kotlin/src/main/kotlin/com/google/ai/edge/litert")
    files = [str(p) for p in sorted(api.glob("*.kt")) if p.stem != "ModelProvider"]
    ours = {"litert", "device", "vectors", "streets"}
    files += [str(p) for p in sorted(HERE.glob("*.kt")) if p.stem not in ours]
    files += map(str, sorted((kits["my_digits"][1] / "app/student/src/test").rglob("*.kt")))
    compiled(kotlinc, [*sources(kits), *files], tmp_path / "classes.jar")
