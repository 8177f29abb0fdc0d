"""The arena that a file needs in TFLite Micro."""

import pathlib
import tempfile
from collections.abc import Mapping
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


def needed(report: Mapping[str, Any]) -> int:
    """Bytes of arena without which a file doesn't start, 0 where nothing was measured.

    Args:
        report: Report of an artifact. Activations are in the NPU's share, where there is one.
    """
    measured = report.get("arena", {"to_start": 0, "head": 0})
    if "npu" not in report:
        return measured["to_start"]
    return measured["to_start"] - measured["head"] + report["npu"]["sram_bytes"]


def reserved(report: Mapping[str, Any], limit: int | None = None) -> int:
    """Bytes of arena that a kit reserves: a margin of a tenth on top of what is needed.

    Args:
        report: Report of an artifact with a measured arena.
        limit: Bytes that it may have (`max_arena`), to which the margin shrinks.
    """
    own = needed(report) - (report["npu"]["sram_bytes"] if "npu" in report else 0)
    size = _rounded(needed(report) + 0.1 * own + 64)
    return size if limit is None else max(min(size, limit // 16 * 16), needed(report))


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
