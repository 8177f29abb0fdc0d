"""What `convert(stream=...)` is asked for."""

import dataclasses
from typing import Any

from keras_distill.tflite import budget

from keras_distill.checks import whole_number


@dataclasses.dataclass(frozen=True, eq=False)
class Stream:
    """A file that takes the next frames and gives the next outputs, for `convert(stream=...)`.

    Args:
        hop: How many frames the file takes at each step: a multiple of the strides along time.
        recordings: Recordings to prove the stream on, of shape `(recordings, time, ...)` with at
            least a window of frames each: an array, or a list or dict of arrays for several
            inputs. By default, the calibration data one after the other.
        max_macs: Multiply-accumulates that a frame may take, or `None`.
        max_state: Bytes that the state may have, as a number or as `"1KB"`, or `None`.

    Raises:
        ValueError: `hop` isn't a whole number of at least 1, or a limit is none.

    Example:

    >>> artifact = keras_distill.tflite.convert(
    ...     student, "micro", "int8", calibration=windows,
    ...     stream=keras_distill.tflite.Stream(hop=2, recordings=recordings))
    """

    hop: int = 1
    recordings: Any = dataclasses.field(default=None, repr=False)
    max_macs: float | None = None
    max_state: int | str | None = None

    def __post_init__(self):
        object.__setattr__(self, "hop", whole_number("hop", self.hop, 1))
        if self.max_macs is not None and not self.max_macs > 0:
            raise ValueError(f"`max_macs` must be above 0. Received: max_macs={self.max_macs!r}")
        budget.size("max_state", self.max_state)

    @classmethod
    def of(cls, given: "int | Stream | None") -> "Stream | None":
        """The argument `stream`, which may be the hop alone."""
        if given is None or isinstance(given, cls):
            return given
        if isinstance(given, bool) or not isinstance(given, int) or given < 1:
            raise ValueError(
                "`stream` must be the number of frames of a step, or a `Stream`. "
                f"Received: stream={given!r}"
            )
        return cls(given)
