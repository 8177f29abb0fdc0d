"""The arena that a file needs in TFLite Micro."""

import pathlib
import tempfile
from typing import Any

from keras_distill.tflite import child, runtimes


def measured(tflite: bytes) -> dict[str, Any]:
    """What TFLite Micro's interpreter on this host keeps of an arena, and needs `to_start`.

    While it starts, the interpreter needs more than it keeps.

    Args:
        tflite: The file.

    Returns:
        Bytes: `total`, `head` and `tail`, and `parts` as in `runtimes.TFLiteMicro.arena`, and
        `to_start`, the least arena in which the interpreter starts, to a hundredth above.
    """
    arena = runtimes.TFLiteMicro(tflite).arena
    return {**arena, "to_start": _least(tflite, _rounded(arena["total"]))}


def with_margin(to_start: int) -> int:
    """An arena in which TFLite Micro starts, with a margin of a tenth."""
    return _rounded(1.1 * to_start + 64)


def _least(tflite, size):
    """The least arena of at least `size` bytes in which TFLite Micro starts and runs."""
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "file.tflite").write_bytes(tflite)
        if _starts(folder, size):
            return size
        low, high = size, _rounded(1.25 * size)
        while not _starts(folder, high):
            if high > runtimes.largest_arena(tflite):
                raise runtimes.Refusal("TFLite Micro starts the file on this host in no arena.")
            low, high = high, _rounded(1.25 * high)
        while high - low > max(16, high // 100):
            middle = _rounded((low + high) / 2)
            low, high = (low, middle) if _starts(folder, middle) else (middle, high)
        return high


def _starts(folder, size):
    """Whether it starts in an arena, in the child process: too small an arena can crash it."""
    try:
        child.run(folder, "run", runtime="micro", arena=size)
    except child.ConverterError:
        return False
    return True


def _rounded(size):
    """The next multiple of 16."""
    return -(-int(size) // 16) * 16
