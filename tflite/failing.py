"""Files that something fails at: a runtime that they bring down, and the operator at fault."""

import pathlib
import tempfile
from collections.abc import Callable

from keras_distill.tflite import child, flatbuffer, runtimes, targets
from keras_distill.tflite.inspect import inspect


def survive(tflite: bytes, runtime: str) -> None:
    """Runs a file once in a child process, since some files bring their interpreter down.

    Args:
        tflite: The file.
        runtime: `"litert"` or `"micro"`.

    Raises:
        Refusal: A runtime crashed. What it merely refuses comes up when the file is opened.
    """
    for name in runtimes.of_target(runtime):
        crash = _crash(tflite, name)
        if crash is not None:
            several = len(flatbuffer.File(tflite).model.subgraphs) > 1
            at = "" if several else f" at {operator_at_fault(tflite, _crashes(name))}"
            raise runtimes.Refusal(f"Runtime {name!r} crashes on the file{at} ({crash}).")


def _crash(tflite, runtime):
    """How a file brings a runtime down, or `None`."""
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "file.tflite").write_bytes(tflite)
        try:
            child.run(folder, "run", runtime=runtime, arena=runtimes.largest_arena(tflite))
        except child.ConverterCrash as crash:
            return crash
        except child.ConverterError:
            pass
    return None


def _crashes(runtime):
    return lambda tflite: _crash(tflite, runtime) is not None


def unprepared(tflite: bytes, message: str) -> str:
    """Which operator XNNPACK refuses, where its message doesn't say so: a sentence, or ""."""
    if "TfLiteXNNPackDelegate" not in message or len(flatbuffer.File(tflite).model.subgraphs) > 1:
        return ""
    return f" It refuses {operator_at_fault(tflite, _is_refused)}."


def _is_refused(tflite):
    try:
        runtimes.open_file(tflite)
    except runtimes.Refusal:
        return True
    return False


def operator_at_fault(tflite: bytes, fails: Callable[[bytes], bool]) -> str:
    """The last of the fewest first operators of a file at which something fails.

    Args:
        tflite: A file of one graph, at which it fails.
        fails: Whether it fails at a file. It is asked about some ten.

    Returns:
        The operator with its layer, or with its number where the file has no names.
    """
    operators = inspect(tflite).operators
    fine, fewest = 0, len(operators)
    while fewest - fine > 1:
        middle = (fine + fewest) // 2
        if fails(flatbuffer.first_operators(tflite, middle)):
            fewest = middle
        else:
            fine = middle
    op = operators[fewest - 1]
    place = f"layer {targets.layer_of(op.layer)!r}" if op.layer else f"operator {fewest - 1}"
    return f"{op.name} ({place})"
