"""The only file that uses what LiteRT and TensorFlow's converter keep private or experimental.

A new release that changes one of these names breaks this file and no other. It also opens TFLite
Micro. Functions import what they need, and nothing of this package, so that a child process can
load this file alone.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

#: LiteRT's kernels: those of phones (XNNPACK), the plain reference ones, and those of phones
#: without XNNPACK.
KERNELS = {
    "litert": "AUTO",
    "litert-reference": "BUILTIN_REF",
    "litert-builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",
}


def litert_interpreter(
    tflite: bytes, kernels: str = "litert", threads: int | None = 1, keep_tensors: bool = False
) -> Any:
    """LiteRT's interpreter for a file, its tensors not allocated yet.

    Args:
        tflite: The file.
        kernels: One of `KERNELS`.
        threads: Number of threads.
        keep_tensors: Keeps every tensor as it was computed, to be read after an inference.
    """
    from ai_edge_litert import interpreter

    return interpreter.Interpreter(
        model_content=bytes(tflite),
        num_threads=threads,
        experimental_preserve_all_tensors=keep_tensors,
        experimental_op_resolver_type=getattr(interpreter.OpResolverType, KERNELS[kernels]),
    )


def computed_tensors(interpreter: Any) -> set[int]:
    """Indices of the tensors that the operators of a LiteRT interpreter compute."""
    return {int(i) for op in interpreter._get_ops_details() for i in op["outputs"]}


def micro_interpreter(tflite: bytes, arena: int) -> Any:
    """TFLite Micro's interpreter for a file, started in an arena of so many bytes."""
    from tflite_micro.python.tflite_micro import runtime

    return runtime.Interpreter.from_bytes(bytes(tflite), arena_size=arena)


def run_on_zeros(tflite: bytes, runtime: str, arena: int) -> None:
    """Runs a file once on zeros.

    Args:
        tflite: The file.
        runtime: `"micro"` or one of `KERNELS`.
        arena: Bytes of TFLite Micro's arena.
    """
    if runtime == "micro":
        from ai_edge_litert import schema_py_generated as schema

        micro = micro_interpreter(tflite, arena)
        for i in range(schema.Model.GetRootAs(tflite).Subgraphs(0).InputsLength()):
            details = micro.get_input_details(i)
            # Unset inputs hold what the memory held: ids out of range, for instance.
            micro.set_input(np.zeros(details["shape"], details["dtype"]), i)
        micro.invoke()
        return
    interpreter = litert_interpreter(tflite, runtime, threads=None)
    interpreter.allocate_tensors()
    for port in interpreter.get_input_details():
        interpreter.set_tensor(port["index"], np.zeros(port["shape"], port["dtype"]))
    interpreter.invoke()


def operator_set(quantization: str) -> Any:
    """TensorFlow's name of the operators that a quantization is converted to."""
    import tensorflow as tf

    if quantization == "int8":
        return tf.lite.OpsSet.TFLITE_BUILTINS_INT8
    if quantization == "int16x8":
        return tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
    return tf.lite.OpsSet.TFLITE_BUILTINS


def quantize_dense_per_tensor(converter: Any) -> None:
    """Has TensorFlow's converter give dense layers one scale for all weights."""
    converter._experimental_disable_per_channel_quantization_for_dense_layers = True


@contextlib.contextmanager
def loading_once() -> Iterator[None]:
    """Inside this context, TensorFlow's converter loads a SavedModel once instead of twice."""
    from tensorflow.lite.python import lite

    load, loaded = lite._load, {}

    def once(folder, tags):
        if folder not in loaded:
            loaded[folder] = load(folder, tags)
        return loaded[folder]

    lite._load = once
    try:
        yield
    finally:
        lite._load = load


@contextlib.contextmanager
def calibrated_files() -> Iterator[list[bytes]]:
    """Collects the float files, ranges included, that TensorFlow's converter quantizes.

    Tensors that were 0 throughout get the range from 0 to 1, see `ranges.widened`.
    """
    from tensorflow.lite.python.optimize.calibrator import Calibrator

    original, found = Calibrator.calibrate, []

    def calibrate(self, *args, **kwargs):
        found.append(_widened(original(self, *args, **kwargs)))
        return found[-1]

    Calibrator.calibrate = calibrate
    try:
        yield found
    finally:
        Calibrator.calibrate = original


def _widened(tflite: bytes) -> bytes:
    """A calibrated file in which no range is 0."""
    from ai_edge_litert import schema_py_generated as schema

    content = bytearray(tflite)
    graph = schema.Model.GetRootAs(content).Subgraphs(0)
    for i in range(graph.TensorsLength()):
        limits = graph.Tensors(i).Quantization()
        if limits is None or not limits.MinLength() or not limits.MaxLength():
            continue
        # Views of the file. What was never above 0 has the least float there is as its maximum.
        low, high = limits.MinAsNumpy(), limits.MaxAsNumpy()
        high[high - low < 1e-30] = 1.0
    return bytes(content)


def fused_lstm(function: Any) -> Any:
    """A TensorFlow function that TensorFlow's converter replaces by the fused LSTM operator."""
    import tensorflow as tf

    mark = {
        "api_implements": "lstm_fused",
        "api_preferred_device": "CPU",
        "go_backwards": False,
        "time_major": False,
    }
    return tf.function(function, autograph=False, experimental_attributes=mark)
