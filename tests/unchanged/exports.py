"""A zoo of small students, each exported one way: what the bytes of the files are."""

import pathlib
import sys
import tempfile

import keras
import numpy as np
import small

sys.path.append(str(small.HERE.parent / "tflite"))

import zoo

from keras_distill import quantization, tflite


def convert(student, target, kind, data=None, options=None, **arguments):
    """`tflite.convert`, with options of calibration beside the data."""
    calibration = tflite.Calibration(data, **options) if options else data
    return tflite.convert(student, target, kind, calibration=calibration, **arguments)


def _data(model):
    return {
        x.name: np.random.default_rng(0).integers(0, 20, (32, *x.shape[1:])).astype("int32")
        if x.dtype == "int32"
        else small.sixteenths((32, *x.shape[1:]), seed=1)
        for x in model.inputs
    }


def _exported(name, target, kind, **arguments):
    def export():
        student = small.set_weights(zoo.STUDENTS[name]())
        data = None if kind in ("float32", "float16", "dynamic") else _data(student)
        return convert(student, target, kind, data, **arguments).tflite

    return export


def _bytes_to_classes():
    """Bytes in, classes out: preprocessing, postprocessing and labels, as it is saved."""
    student = small.set_weights(zoo.conv())
    data = np.random.default_rng(0).integers(0, 256, (32, 8, 8, 2)).astype("uint8")
    artifact = convert(
        student,
        "android",
        "int8",
        data,
        io=("uint8", "float32"),
        preprocessing=keras.layers.Rescaling(1 / 256),
        postprocessing="softmax",
        labels=["a", "b", "c", "d"],
    )
    with tempfile.TemporaryDirectory() as folder:
        artifact.save(folder)
        # The sample app has the same file once more.
        [file] = {path.read_bytes() for path in pathlib.Path(folder).rglob("student.tflite")}
        return file


def _aware(name, target="micro", **options):
    def export():
        student = small.set_weights(zoo.STUDENTS[name]())
        data = _data(student)
        data = data if len(data) > 1 else next(iter(data.values()))
        aware = quantization.quantize_aware(student, data, **options)
        return tflite.convert(aware, target).tflite

    return export


CASES = {
    "conv-android-float32": _exported("conv", "android", "float32"),
    "several-android-float16": _exported("several", "android", "float16"),
    "conv1d-android-dynamic": _exported("conv1d", "android", "dynamic"),
    "embedding-android-float32-any_batch": _exported(
        "embedding", "android", "float32", batch_size=None
    ),
    "lstm-micro-float32": _exported("lstm", "micro", "float32"),
    "conv-micro-int8": _exported("conv", "micro", "int8"),
    "attention-micro-int8": _exported("attention", "micro", "int8"),
    "lstm-android-int8": _exported("lstm", "android", "int8"),
    "conv1d-micro-int16x8": _exported("conv1d", "micro", "int16x8"),
    "conv-android-int4": _exported("conv", "android", "int4"),
    "conv-android-int8-percentile": _exported(
        "conv", "android", "int8", options={"ranges": "percentile", "percentile": 99.0}
    ),
    "several-android-int8-mse-precision": _exported(
        "several",
        "android",
        "int8",
        options={"ranges": "mse", "samples": 16},
        precision={"scores": "float32"},
    ),
    "gru-micro-int8-step": _exported("gru", "micro", "int8", recurrent="step"),
    "gru-android-int8-unroll": _exported("gru", "android", "int8", recurrent="unroll"),
    "conv-android-int8-bytes_to_classes": _bytes_to_classes,
    "conv-micro-aware_int8": _aware("conv"),
    "conv-android-aware_int4": _aware("conv", "android", weight_bits=4),
    "attention-android-aware_int8": _aware("attention", "android"),
    "several-micro-aware_int16x8": _aware("several", activation_bits=16),
}


def compute(cases=CASES):
    """SHA-256, size and operators of each file."""
    found = {}
    for name in cases:
        small.fresh_names()
        file = CASES[name]()
        operators = tflite.inspect(file).counts
        found[name] = {"sha256": small.sha(file), "bytes": len(file), "operators": operators}
    return found
