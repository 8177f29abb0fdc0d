"""What conversion costs and gives, against the converters that it builds on.

    python benchmarks/export.py

For ResNet-8 on 32x32 images (MLPerf Tiny's size) and MobileNetV2 (alpha 0.35, 96x96), both with
random weights, int8 from the same 64 samples by

- keras_distill: `keras_distill.tflite.convert`, for phones and for microcontrollers;
- TensorFlow: `tf.lite.TFLiteConverter.from_keras_model`, as its guide says;
- ai-edge-quantizer: its static int8 recipe on the float32 file.

Seconds are medians of rounds in turns; latencies those of LiteRT on one thread, all files in turns.
Writes `benchmarks/results/export.json`, and its table into `docs/performance.md`.
"""

import json
import os
import pathlib
import statistics
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags
from common import RESULTS, in_turns, insert, machine, ratios, write
from keras_distill.tflite import runtimes
from pictures import draw
from step_time import resnet

from keras_distill import _markdown, tflite

FLAGS = flags.FLAGS
flags.DEFINE_integer("export_rounds", 3, "Rounds of conversion that count.")
flags.DEFINE_integer("latency_rounds", 100, "Rounds of inference that count.")


def mobilenet():
    return keras.applications.MobileNetV2((96, 96, 3), alpha=0.35, weights=None, classes=10)


MODELS = {
    "ResNet-8": lambda: resnet((32, 32, 3), 1, "resnet8")[0],
    "MobileNetV2": mobilenet,
}


# Ways to an int8 file.


def ours(target):
    return lambda model, x: tflite.convert(model, target, "int8", io="int8", calibration=x).tflite


def tensorflow(model, x):
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([sample[None]] for sample in x)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()


def ai_edge_quantizer(model, x):
    from ai_edge_quantizer import quantizer, recipe

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "float32.tflite")
        path.write_bytes(tflite.convert(model).tflite)
        tool = quantizer.Quantizer(str(path), recipe.static_wi8_ai8())
        (name,) = (port["name"] for port in tflite.load(path).report["inputs"])
        data = {"serving_default": [{name: sample[None]} for sample in x]}
        ranges = tool.calibrate(data)
        return bytes(tool.quantize(ranges).quantized_model)


WAYS = {
    "keras_distill, for phones": ours("android"),
    "keras_distill, for microcontrollers": ours("micro"),
    "TensorFlow": tensorflow,
    "ai-edge-quantizer": ai_edge_quantizer,
}


# What is measured.


def conversion(model, x):
    """Seconds of each way, and its file."""
    files = {}

    def convert(name, way):
        files[name] = way(model, x)

    functions = {name: lambda n=name, w=way: convert(n, w) for name, way in WAYS.items()}
    seconds = in_turns(functions, FLAGS.export_rounds)
    return {name: statistics.median(times) for name, times in seconds.items()}, files


def latency(files, x):
    """Seconds of an inference in LiteRT, on one thread."""
    functions = {}
    for name, file in files.items():
        opened = runtimes.open_file(file)
        (port,) = opened.inputs
        sample = port.quantize(x[:1])
        functions[name] = lambda opened=opened, sample=sample: opened.run([sample])
    return in_turns(functions, FLAGS.latency_rounds)


def arena(file):
    """Bytes of the arena in TFLite Micro, or why it doesn't run there."""
    try:
        runtimes.survive(file, "micro")
        return runtimes.open_file(file, "micro").arena["total"]
    except Exception as error:
        return str(error).splitlines()[0]


def measure(model):
    x = np.random.default_rng(0).random((64, *model.input_shape[1:]), "float32")
    seconds, files = conversion(model, x)
    files = {"float32": tflite.convert(model).tflite, **files}
    times = latency(files, x)
    rows = {
        name: {
            "seconds to convert": seconds.get(name),
            "bytes": len(file),
            "milliseconds": 1000 * statistics.median(times[name]),
            "latency over float32": statistics.median(ratios(times[name], times["float32"])),
            "arena": arena(file),
        }
        for name, file in files.items()
    }
    return {"parameters": model.count_params(), "files": rows}


def table(results):
    """The results as Markdown."""
    header = ["model", "file", "bytes", "of float32", "seconds to convert"]
    header += ["latency over float32", "arena"]
    rows = []
    for name, model in results["models"].items():
        whole = model["files"]["float32"]["bytes"]
        for file, row in model["files"].items():
            seconds, bytes_in_arena = row["seconds to convert"], row["arena"]
            cells = [
                f"{row['bytes']:,}",
                f"{row['bytes'] / whole:.2f}",
                "" if seconds is None else f"{seconds:.1f}",
                f"{row['latency over float32']:.2f}",
                f"{bytes_in_arena:,}" if isinstance(bytes_in_arena, int) else "refused",
            ]
            rows.append([name, file, *cells])
    return _markdown.table(header, rows)


def main(_):
    results = {
        "models": {name: measure(build()) for name, build in MODELS.items()},
        "rounds": {"export": FLAGS.export_rounds, "latency": FLAGS.latency_rounds},
        "machine": machine(),
    }
    write(RESULTS / "export.json", json.dumps(results, indent=1) + "\n")
    insert(table(results), "docs/performance.md", "export")
    draw("export", results)
    print(table(results))


if __name__ == "__main__":
    app.run(main)
