"""What a board that runs a kit answers to the kit's stored vectors, over any stream of bytes."""

import json
import os
import pathlib
import re
import time
import zlib
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

#: Bytes in a line, of which a board keeps one at a time.
_CHUNK = 32
#: Seconds after which a board that is silent is greeted again.
_AGAIN = 1.0
#: The answer to each command.
_ANSWERS = {
    "hello": re.compile(r"hello ([0-9a-f]{8}) (\d+) (\d+)"),
    "reset": re.compile("ok"),
    "input": re.compile("ok"),
    "run": re.compile(r"ran (\d+)"),
    "output": re.compile(r"bytes ((?:[0-9a-f]{2})+) ([0-9a-f]{8})"),
}


class Stream(Protocol):
    """A connection to a board, such as a `serial.Serial` of pyserial with a timeout."""

    def read(self, size: int) -> bytes:
        """Bytes that arrived, at most `size`; none where none come for a while."""

    def write(self, data: bytes) -> Any:
        """Sends bytes."""


class BoardError(ValueError):
    """A board does not answer, or answers something else than was asked for."""


class _SilentError(BoardError):
    """Nothing came in time."""


class Board:
    """A board that runs a kit's `NAME_serve.h`.

    Args:
        stream: The connection.
        timeout: Seconds to wait for an answer.
    """

    def __init__(self, stream: Stream, timeout: float = 10.0):
        self._stream = stream
        self._timeout = timeout
        self._received = b""
        #: What the board said besides its answers, such as TFLite Micro's messages.
        self.log: list[str] = []

    def hello(self) -> tuple[int, int, int]:
        """CRC-32 of the board's model, bytes that its arena holds, and the arena's size.

        A board that starts when its port is opened is asked again until it answers.
        """
        end = time.monotonic() + self._timeout
        again = 0.0
        refused: BoardError | None = None
        while True:
            if time.monotonic() >= again:
                self._send("hello")
                again = min(end, time.monotonic() + _AGAIN)
            try:
                model, used, size = self._answer("hello", again).groups()
            except _SilentError as error:
                if time.monotonic() >= end:
                    raise refused or error from None
            except BoardError as error:  # Perhaps of what came before.
                refused = error
            else:
                return int(model, 16), int(used), int(size)

    def run(
        self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]
    ) -> tuple[list[np.ndarray], int]:
        """Runs the model once.

        Args:
            inputs: An array for each input, of its type.
            outputs: Arrays of the types and shapes of the outputs.

        Returns:
            An array for each output, and the microseconds that the model took on the board.
        """
        self._ask("reset")
        for index, array in enumerate(inputs):
            data = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes()
            for offset in range(0, len(data), _CHUNK):
                part = data[offset : offset + _CHUNK]
                self._ask(f"input {index} {offset} {part.hex()} {zlib.crc32(part):08x}")
        microseconds = int(self._ask("run")[1])
        return [self._output(i, like) for i, like in enumerate(outputs)], microseconds

    def _output(self, index, like):
        data = b""
        while len(data) < like.nbytes:
            count = min(_CHUNK, like.nbytes - len(data))
            found = self._ask(f"output {index} {len(data)} {count}")
            part = bytes.fromhex(found[1])
            if len(part) != count:
                raise _unfit("output", found[0])
            if zlib.crc32(part) != int(found[2], 16):
                raise BoardError("The board's answer arrived with errors. Lower the baud rate.")
            data += part
        return np.frombuffer(data, like.dtype.newbyteorder("<")).reshape(like.shape)

    def _ask(self, command):
        self._send(command)
        return self._answer(command, time.monotonic() + self._timeout)

    def _send(self, command):
        self._stream.write(f"kd? {command}\n".encode())

    def _answer(self, command, end):
        word = command.split()[0]
        while True:
            line = self._line(word, end)
            if not line.startswith("kd! "):
                self.log += [line] if line else []
                continue
            answer = line.removeprefix("kd! ")
            if answer.startswith("error: "):
                raise BoardError(f"The board refused {command!r}: {answer.removeprefix('error: ')}")
            found = _ANSWERS[word].fullmatch(answer)
            if found:
                return found
            # A board that started late answers each greeting that it was sent meanwhile.
            if word == "hello" or not answer.startswith("hello "):
                raise _unfit(word, answer)

    def _line(self, word, end):
        while b"\n" not in self._received:
            if time.monotonic() >= end:
                said = f" It said: {' | '.join(self.log[-3:])}" if self.log else ""
                raise _SilentError(
                    f"The board gave no answer to {word!r} in time. Does it run the kit's serve.h, "
                    f"at this port and baud rate?{said}"
                )
            self._received += self._stream.read(256)
        line, _, self._received = self._received.partition(b"\n")
        return line.decode(errors="replace").strip()


def _unfit(word, answer):
    return BoardError(
        f"The board answered {word!r} with {answer!r}, which is no answer to it. Build and flash "
        "the kit's own serve.h, and let nothing else use the port."
    )


def vectors(artifact_vectors: tuple[list[tuple], list[tuple]], ports: Any, source: str) -> str:
    """The stored vectors of a kit as JSON: integers as the file has them.

    Args:
        artifact_vectors: Inputs and outputs as `Artifact.test_vectors` gives them.
        ports: Inputs and outputs of the file.
        source: Where the inputs come from.
    """
    sides = {}
    for side, arrays in zip(("inputs", "outputs"), artifact_vectors, strict=True):
        sides[side] = [
            {
                "name": port.name,
                "dtype": port.dtype,
                "shape": [size or 1 for size in port.shape],
                "scale": float(port.scale),
                "values": [np.asarray(array).ravel().tolist() for array in given],
            }
            for port, given in zip(getattr(ports, side), arrays, strict=True)
        ]
    return json.dumps({"source": source, **sides}) + "\n"


def prove(folder: str | os.PathLike, stream: Stream, timeout: float = 10.0) -> dict[str, Any]:
    """Runs a kit's stored vectors on a board that runs the kit, and compares its answers.

    Args:
        folder: The kit, as `Artifact.save` wrote it for microcontrollers.
        stream: The connection to the board.
        timeout: Seconds to wait for each answer.

    Returns:
        What was found, as plain types: `vectors` and how many are the `same` bit for bit; for each
        output the `largest_difference`, in steps of its quantization where it has one;
        `microseconds` of the inferences (`median`, `min`, `max`); `arena_used` and `arena_size` in
        bytes; `verdict`: `"pass"` where no output is further than one step (1e-4 for floats) from
        the stored one, since kernels optimized for a processor may round otherwise, else `"fail"`.

    Raises:
        BoardError: The board doesn't answer, or runs another file than the kit's.
        ValueError: The folder isn't a kit for microcontrollers.
    """
    kept, check = stored(folder)
    board = Board(stream, timeout)
    model, used, size = board.hello()
    if model != check:
        raise BoardError(
            f"The board runs another file than {folder}: its CRC-32 is {model:08x}, not "
            f"{check:08x}. Build and flash the kit's own sources."
        )
    given, expected = (_arrays(kept[side]) for side in ("inputs", "outputs"))
    count = len(given[0])
    got, times = [], []
    for i in range(count):
        outputs, microseconds = board.run([port[i] for port in given], [p[i] for p in expected])
        got.append(outputs)
        times.append(microseconds)
    rows = [
        _difference(port, [outputs[i] for outputs in got], expected[i])
        for i, port in enumerate(kept["outputs"])
    ]
    same = sum(
        all(np.array_equal(a, port[i]) for a, port in zip(outputs, expected, strict=True))
        for i, outputs in enumerate(got)
    )
    return {
        "vectors": count,
        "source": kept["source"],
        "same": same,
        "verdict": "pass"
        if all(row["largest_difference"] <= row["allowed"] for row in rows)
        else "fail",
        "outputs": rows,
        "microseconds": {"median": int(np.median(times)), "min": min(times), "max": max(times)},
        "arena_used": used,
        "arena_size": size,
    }


def stored(folder: str | os.PathLike) -> tuple[dict[str, Any], int]:
    """A kit's vectors, and the CRC-32 of the file that its firmware holds.

    Args:
        folder: The kit.

    Raises:
        ValueError: The folder isn't a kit for microcontrollers, or its vectors can't be read.
    """
    folder = pathlib.Path(folder)
    path = folder / "test_vectors.json"
    files = sorted(folder.glob("*.tflite"))
    if not path.is_file() or not files:
        raise ValueError(
            f"{folder} isn't a kit for microcontrollers: it has no test_vectors.json and .tflite "
            "file."
        )
    compiled = [file for file in files if file.stem.endswith("_vela")]
    return _kept(path), zlib.crc32((compiled or files)[0].read_bytes())


def _kept(path: pathlib.Path) -> dict[str, Any]:
    kept = read_json(path)
    try:
        sides = [_arrays(kept[side]) for side in ("inputs", "outputs")]
        counts = {len(port) for side in sides for port in side}
        wanted = {"name", "scale"}
        known = all(wanted <= set(port) for port in kept["outputs"]) and "source" in kept
    except (KeyError, TypeError, ValueError):
        known, counts = False, set()
    if not known or len(counts) != 1 or 0 in counts:
        raise ValueError(f"{path} isn't what `Artifact.save` wrote: save the kit anew.")
    return kept


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """A file of a kit.

    Args:
        path: The file, a JSON object.

    Raises:
        ValueError: It isn't one. The message names it.
    """
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} isn't JSON: {error}. Save the kit anew.") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} isn't a JSON object. Save the kit anew.")
    return found


def _arrays(ports):
    return [
        [np.array(values, port["dtype"]).reshape(port["shape"]) for values in port["values"]]
        for port in ports
    ]


def _difference(port, got, expected):
    """How far an output is from the stored one: in steps where it is quantized."""
    far = float(np.abs(np.float64(got) - np.float64(expected)).max())  # NaN where one is.
    unit = "steps" if port["dtype"] != "float32" else "value"
    allowed = 1e-4 if unit == "value" else float(bool(port["scale"]))
    return {
        "name": port["name"], "largest_difference": far, "unit": unit, "allowed": allowed,
    }  # fmt: skip
