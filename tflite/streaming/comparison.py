"""A stream, held against the student on windows of the same recording."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from keras_distill.tflite.streaming.timeline import Elements, Timeline

#: Outputs by name for inputs by name, each of shape `(samples, ...)`.
Student = Callable[[dict[str, np.ndarray]], Mapping[str, np.ndarray]]


class Pair(NamedTuple):
    """What two ways of computing an output give for the same frames.

    Attributes:
        windows: The student on windows, of shape `(values, ...)`.
        stream: The stream.
        same: Which of these values must be the same, of shape `(values,)`. The others depend on
            padding at the edges of windows, in whose place the stream has frames.
    """

    windows: np.ndarray
    stream: np.ndarray
    same: np.ndarray


class Comparison:
    """When the outputs of a stream are those of the student on a window.

    Args:
        outputs: When each output comes, by name.
        window: Frames of a window.
        hop: Frames of a step.
    """

    def __init__(self, outputs: Mapping[str, Timeline], window: int, hop: int):
        self.outputs = outputs
        self.window = window
        self.hop = hop

    def starts(self, time: Timeline, frames: int) -> list[int]:
        """First frames of the windows of a recording on which an output can be compared."""
        last = frames - self.window
        if isinstance(time, Elements):
            return list(range(0, last + 1, time.stride))
        return list(range(-time.offset % self.hop, min(last, frames - time.offset) + 1, self.hop))

    def pairs(
        self, student: Student, recording: Mapping[str, np.ndarray], got: Mapping[str, np.ndarray]
    ) -> dict[str, Pair]:
        """The outputs of both for the same frames, by name.

        Args:
            student: The student on windows.
            recording: A recording, arrays of shape `(time, ...)` by name.
            got: What the stream gave for it, arrays of shape `(elements or steps, ...)` by name.
        """
        frames = len(next(iter(recording.values())))
        wanted = {name: self.starts(time, frames) for name, time in self.outputs.items()}
        starts = sorted({start for each in wanted.values() for start in each})
        if not starts:
            return {}
        expected = student(
            {name: np.stack([a[s : s + self.window] for s in starts])
             for name, a in recording.items()}
        )  # fmt: skip
        by_start = {name: dict(zip(starts, expected[name], strict=True)) for name in self.outputs}
        return {
            name: self._pair(time, by_start[name], wanted[name], got[name])
            for name, time in self.outputs.items()
            if wanted[name]
        }

    def _pair(self, time, expected, starts, got):
        if isinstance(time, Elements):
            return self._of_elements(time, expected, starts, got)
        places = [(s + time.offset) // self.hop - 1 for s in starts]
        same = [time.always or (time.first and s == 0) for s in starts]
        windows = [expected[s] for s in starts]
        return Pair(np.asarray(windows), got[places], np.asarray(same, bool))

    def _of_elements(self, time, expected, starts, got):
        parts = []
        for start in starts:
            low = time.low if start else time.start
            shift = start // time.stride + time.delay
            low, high = max(low, -shift), min(time.high, len(got) - shift)
            if low < high:
                parts.append((expected[start][low:high], got[low + shift : high + shift]))
        if not parts:
            return Pair(got[:0], got[:0], np.ones(0, bool))
        windows, stream = (np.concatenate(side) for side in zip(*parts, strict=True))
        return Pair(windows, stream, np.ones(len(stream), bool))
