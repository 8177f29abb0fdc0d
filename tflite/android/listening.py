"""From a microphone's samples to what an app acts on, in Kotlin."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from keras_distill.tflite import names
from keras_distill.tflite.android import kotlin_port
from keras_distill.tflite.front_ends import FrontEnd, check_features, is_log_mel, mel_bands
from keras_distill.tflite.streaming.decision import Decision

if TYPE_CHECKING:
    from keras_distill.tflite.artifact import Artifact

_PERMITTED = """\
<manifest xmlns:android="http://schemas.android.com/apk/res/android">
  <uses-permission android:name="android.permission.RECORD_AUDIO" />
</manifest>"""

_README = (
    "| `student/src/main/kotlin/Microphone.kt`, `Listener.kt`, `FrontEnd.kt`, `Decision.kt` "
    "| from the microphone to what is detected |\n"
)


@dataclasses.dataclass(frozen=True)
class Heard:
    """What an app does with sounds and scores.

    Args:
        decision: When the app acts on scores, or `None`.
        front_end: What computes frames from a sound, or `None`.

    Raises:
        ValueError: There is no Kotlin of the front end.
    """

    decision: Decision | None = None
    front_end: FrontEnd | None = None

    def __post_init__(self):
        if self.front_end is not None and not is_log_mel(self.front_end):
            raise ValueError(
                "An app's `front_end` must be a `keras_distill.data.LogMel`: TFLite Micro's front "
                "end, `MicroFeatures`, is C++ for firmware. Train on `LogMel` for both, or leave "
                f"`front_end` out. Received: front_end of type {type(self.front_end).__name__}"
            )

    def templates(self, artifact: "Artifact", kotlin_class: str) -> dict[str, Mapping[str, Any]]:
        """What to fill into each template.

        Args:
            artifact: The artifact of the kit.
            kotlin_class: Name of its class.

        Raises:
            ValueError: The class has the name of another, or the stream doesn't fit.
        """
        found: dict[str, Mapping[str, Any]] = {}
        if self.decision is not None:
            found["Decision.kt"] = self.decision.constants()
        if self.front_end is not None:
            found["FrontEnd.kt"] = _front_end(self.front_end)
        if self._listens(artifact):
            found["Listener.kt"] = _listener(artifact, self.front_end)
            found["Microphone.kt"] = {}
        if f"{kotlin_class}.kt" in found:
            raise ValueError(
                f"`name` must differ from that of the class {kotlin_class}, which the kit has, "
                f"too. Received: name={kotlin_class!r}"
            )
        return found

    def of_app(self, artifact: "Artifact") -> dict[str, str]:
        """What the sample app's manifest and README say of it."""
        listens = self._listens(artifact)
        return {
            "MANIFEST": _PERMITTED if listens else "<manifest />",
            "LISTENS": _README if listens else "",
        }

    def _listens(self, artifact):
        return None not in (self.decision, self.front_end, artifact.stream)


def _front_end(front_end):
    bands, weights = mel_bands(front_end)
    numbers = [f"{np.float32(weight):.9g}f" for weight in weights]
    lines = [", ".join(numbers[i : i + 6]) for i in range(0, len(numbers), 6)]
    sizes = {name: getattr(front_end, name) for name in ("RATE", "BANDS", "STEP", "WINDOW")}
    return {
        **sizes,
        "POINTS": front_end.POINTS,
        "FIRST": ", ".join(str(first) for first, _ in bands),
        "COUNTS": ", ".join(str(count) for _, count in bands),
        "WEIGHTS": "\n".join(f"        {line}," for line in lines),
    }


def _listener(artifact, front_end):
    ports = artifact.ports
    given = {i: f"state{n}" for n, (i, _) in enumerate(ports.states)}
    data = [i for i in range(len(ports.inputs)) if i not in given]
    if len(data) != 1 or len(ports.results) != 1:
        raise ValueError(
            "`front_end` with a `decision` is for a stream (`convert(stream=...)`) of one input "
            f"and one output. Received: {len(data)} inputs and {len(ports.results)} outputs"
        )
    (frames,), (scores,) = data, ports.results
    check_features(front_end, ports.inputs[frames].shape)
    zeros = {
        name: f"{port.argument}({port.size})"
        for i, name in given.items()
        for port in [kotlin_port.Port(ports.inputs[i], (0.0, 1.0), state=True)]
    }
    kept = {given[i]: names.kotlin_identifier(ports.outputs[o].name) for i, o in ports.states}
    return {
        "SIZE": int(np.prod(ports.inputs[frames].shape[1:])),
        "STATES": "\n".join(f"  private var {name} = {zero}" for name, zero in zeros.items()),
        "RESETS": "\n".join(f"    {name} = {zero}" for name, zero in zeros.items()),
        "GIVEN": ", ".join(given.get(i, "frames") for i in range(len(ports.inputs))),
        "KEEPS": "\n".join(f"    {name} = result.{output}" for name, output in kept.items()),
        "OUTPUT": names.kotlin_identifier(ports.outputs[scores].name),
        "CLASSES": ports.outputs[scores].shape[-1],
    }
