"""The decoding in C++ finds what Python finds, from integers and floats."""

import itertools
import shutil
import subprocess
import types

import numpy as np
import pytest
from small_detectors import HEAD, rectangles, small_detector
from sweeps import rest_is_long

from keras_distill import detection, tflite

STRICT = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-O2"]
ANCHORED = detection.Head(
    (32, 48), (16,), ["a", "b", "c"], "deltas", classes=1, boxes=0, per_cell=2,
    anchors=np.arange(48).reshape(12, 4) % 17 + np.array([0, 0, 20, 20]),
    activation="sigmoid", variances=(0.1, 0.1, 0.2, 0.2),
)  # fmt: skip
HEADS = {
    "edges": HEAD,
    "distances": detection.Head((33, 40), (8, 16), ["a", "b"], per_cell=2),
    "anchored": ANCHORED,
}

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")


def artifact(head, dtype, seed):
    """What `BoxSources` asks of one: random outputs, of many equal scores where they are int8."""
    rng = np.random.default_rng(seed)
    shapes = [(5, head.places, len(head.class_names)), (5, head.places, 4)]
    if head.boxes_as == "edges":
        shapes[1] = (*shapes[1], 6)
    scales = (0.06, 0.05) if head.activation is None else (1 / 256, 0.05)
    zeros = (40, 3) if head.activation is None else (-128, 3)
    ports, values, stored = [], {}, {}
    for name, shape, scale, zero in zip(("classes", "boxes"), shapes, scales, zeros, strict=True):
        integers = rng.integers(-128, 128, shape).astype("int8")
        values[name] = ((integers.astype("int32") - zero) * np.float32(scale)).astype("float32")
        stored[name] = integers if dtype == "int8" else values[name]
        grid = (scale, zero) if dtype == "int8" else (0.0, 0)
        ports.append(
            types.SimpleNamespace(
                name=name, shape=(1, *shape[1:]), dtype=dtype, scale=grid[0], zero_point=grid[1]
            )
        )
    if head.classes == 1:
        ports.reverse()
    outputs = {port.name: values[port.name] for port in ports}
    return (
        types.SimpleNamespace(
            ports=types.SimpleNamespace(outputs=ports), example_values=lambda: ({}, outputs)
        ),
        [stored[port.name] for port in ports],
        ports,
    )


def vectors(name, ports, stored):
    """A stand-in of the kit's `<name>_test_vectors.h`."""
    kinds = {"int8": "std::int8_t", "float32": "float"}
    lines = ["#pragma once", "#include <cstdint>", f"namespace {name} {{"]
    lines.append("constexpr int kVectorCount = 5;")
    for port, array in zip(ports, stored, strict=True):
        struct, kind = f"{port.name.capitalize()}Output", kinds[port.dtype]
        numbers = ", ".join(repr(float(x)) if port.dtype != "int8" else str(x) for x in array.flat)
        lines.append(f"struct {struct} {{ static constexpr int kSize = {array[0].size}; }};")
        suffix = "f" if port.dtype != "int8" else ""
        numbers = numbers.replace(", ", f"{suffix}, ") + suffix
        lines.append(f"const {kind} k{struct}Vectors[] = {{{numbers}}};")
    return "\n".join([*lines, "}"])


@pytest.mark.parametrize(
    ("name", "dtype"),
    rest_is_long(list(itertools.product(HEADS, ("int8", "float32"))), [("edges", "int8")]),
)
def test_header_finds_what_python_finds(name, dtype, tmp_path):
    head = HEADS[name]
    sources = detection.BoxSources(head, score=0.6, iou=0.4, most=9)
    made, stored, ports = artifact(head, dtype, 0)
    files = sources.cpp("kit", made)
    values = made.example_values()[1]
    found = sources.detections({head.classes: values["classes"], head.boxes: values["boxes"]})
    assert (found.labels >= 0).sum() > 10
    for path, text in files.items():
        (tmp_path / path).write_text(text)
    (tmp_path / "kit_test_vectors.h").write_text(vectors("kit", ports, stored))
    program = str(tmp_path / "main")
    main = str(tmp_path / "boxes_main.cc")
    done = subprocess.run(["g++", *STRICT, main, "-o", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    done = subprocess.run([program], capture_output=True, text=True)
    assert done.stdout == "PASS: 5 of 5 vectors give the same detections\n"
    if (name, dtype) != ("edges", "int8"):
        return
    # It can fail.
    wrong = files["boxes_main.cc"].replace("<= 0.01f", "<= -1.0f")
    (tmp_path / "boxes_main.cc").write_text(wrong)
    subprocess.run(["g++", *STRICT, main, "-o", program], check=True)
    assert subprocess.run([program], capture_output=True).returncode == 1


def test_candidates_are_those_of_all_where_they_suffice():
    made, _, _ = artifact(HEAD, "int8", 1)
    outputs = made.example_values()[1]
    sources = detection.BoxSources(HEAD, score=0.6, most=60)
    for a, b in zip(
        sources.detections(outputs), HEAD.detections(outputs, score=0.6, most=60), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_kit_of_a_student(tmp_path):
    """Raw outputs in integers, each with a scale of its own, and the header in the library."""
    images = rectangles(40, 0)[0].astype("float32")
    made = tflite.convert(small_detector(), "micro", "int8", calibration=images)
    sources = detection.BoxSources(HEAD, score=0.01)
    folder = made.save(tmp_path, "kit", sources=sources)
    scales = {port.name: port.scale for port in made.ports.outputs}
    assert len(set(scales.values())) == 2
    header = (folder / "kit_boxes.h").read_text()
    assert list((folder / "library").rglob("kit_boxes.h"))
    assert "@" not in header
    include = tmp_path / "stub/tensorflow/lite/micro"
    (include / "kernels").mkdir(parents=True)
    (include / "kernels" / "fully_connected.h").write_text(
        "namespace tflite { struct OpDataFullyConnected { bool is_per_channel; }; }\n"
    )
    (include / "micro_mutable_op_resolver.h").write_text(
        "enum TfLiteStatus { kTfLiteOk, kTfLiteError };\n#define TF_LITE_ENSURE_STATUS(a) (a)\n"
        "namespace tflite { template <unsigned n> struct MicroMutableOpResolver {\n"
        + "".join(
            f"  TfLiteStatus {method}() {{ return kTfLiteOk; }}\n"
            for method in ("AddConcatenation", "AddConv2D", "AddReshape", "AddMul", "AddAdd",
                           "AddQuantize")
        )
        + "}; }\n"
    )  # fmt: skip
    program = str(tmp_path / "program")
    units = [str(folder / "boxes_main.cc"), str(folder / "kit_test_vectors.cc")]
    flags = [*STRICT, f"-I{folder}", "-I", str(tmp_path / "stub")]
    done = subprocess.run(["g++", *flags, *units, "-o", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    done = subprocess.run([program], capture_output=True, text=True)
    assert done.stdout == "PASS: 5 of 5 vectors give the same detections\n"
    wrong = detection.BoxSources(detection.Head((48, 64), (8, 16), ["a", "b"], classes="found"))
    with pytest.raises(ValueError, match="The head's outputs are 'found' and 'boxes'"):
        made.save(tmp_path / "other", sources=wrong)
