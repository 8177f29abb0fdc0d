"""Exported generation, run: each row's tokens are read once, what is kept of them goes along."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from keras import ops

from keras_distill._types import Tensor
from keras_distill.language.given import fitted


class FileReader:
    """A file that `keras_distill.language.export` made, as the model that a search asks.

    Args:
        tflite: The file.

    Attributes:
        length: Tokens of the longest sequence, `None` for any.
        words: Tokens that it knows.
    """

    def __init__(self, tflite: bytes):
        from keras_distill.tflite import signatures

        self._file = signatures.Signatures(tflite)
        ports, results = self._file.inputs["decode"], self._file.outputs["decode"]
        self._kept = {n: port for n, port in ports.items() if n not in ("tokens", "position")}
        self._empty = {name: np.zeros(port.shape, "float32") for name, port in self._kept.items()}
        self._logits = np.zeros(results["logits"].shape, "float32")
        self.words = self._logits.shape[-1]
        prefill = self._file.inputs.get("prefill")
        self._prefill = prefill["tokens"].shape[1] if prefill else 0
        rooms = (port.shape[1] for name, port in ports.items() if f"{name}_new" in results)
        self.length = next(rooms, None)
        #: What is kept of each row, by the tokens read so far.
        self._rows: list[tuple[list[int], dict[str, np.ndarray]]] = []
        self._beams = 1

    def begin(
        self, inputs: Mapping[str, Any] | None, count: int, length: int, beams: int
    ) -> "FileReader":
        """Starts new sequences, and returns itself.

        Args:
            inputs: Inputs of the encoder by name, or `None`.
            count: How many sequences.
            length: Tokens of the longest.
            beams: How many rows there are of each, side by side.

        Raises:
            ValueError: The file has no room for such sequences, or takes other inputs.
        """
        self._rows, self._beams = [], beams
        arrays = self.fitting(inputs, count, length)
        for i in range(count):
            kept = self._empty
            if arrays:
                given = {name: x[i : i + 1] for name, x in arrays.items()}
                kept = kept | self._rounded(self._file.run("encode", given))
            self._rows += [([], kept)] * beams
        return self

    def fitting(
        self, inputs: Mapping[str, Any] | None, count: int, length: int
    ) -> dict[str, np.ndarray]:
        """The encoder's inputs as the file takes them.

        Args:
            inputs: As in `begin`.
            count: As in `begin`.
            length: As in `begin`.

        Raises:
            ValueError: As in `begin`.
        """
        if self.length is not None and length > self.length:
            raise ValueError(
                f"The file was exported for sequences of up to {self.length} tokens. Received: "
                f"length={length}"
            )
        encoded = self._file.inputs.get("encode", {})
        inputs = {} if inputs is None else inputs
        if not isinstance(inputs, Mapping):
            raise ValueError(
                f"`inputs` must be a dict of arrays by name. Received: {type(inputs).__name__}"
            )
        if bool(inputs) != bool(encoded) or not set(encoded) <= set(inputs):
            takes = f"the inputs {sorted(encoded)}, with `target`" if encoded else "prompts alone"
            raise ValueError(f"The file takes {takes}. Received: {sorted(inputs) or 'prompts'}")
        return {name: fitted(np.asarray(inputs[name]), port, count)
                for name, port in encoded.items()}  # fmt: skip

    def __call__(self, tokens: Tensor, position: Tensor) -> Tensor:
        """The logits of the token at `position` of each row, given those before it."""
        before = np.asarray(tokens)[:, : int(position)].tolist()
        rows, logits = [], []
        for i, sequence in enumerate(before):
            first = i // self._beams * self._beams
            # A beam may go on from another one of its sequence.
            read, kept = max(
                (row for row in self._rows[first : first + self._beams]
                 if row[0] == sequence[: len(row[0])]),
                key=lambda row: len(row[0]),
            )  # fmt: skip
            found = self._logits
            while len(read) < len(sequence) and sequence[-1] != 0:
                read, kept, found = self._step(sequence, read, kept)
            rows.append((read, kept))
            logits.append(found)
        self._rows = rows
        return ops.convert_to_tensor(np.concatenate(logits))

    def _step(self, sequence, read, kept):
        """Reads the next tokens of a sequence."""
        place = len(read)
        left = len(sequence) - place
        name, size = ("prefill", self._prefill) if 1 < self._prefill <= left else ("decode", 1)
        tokens = np.array([sequence[place : place + size]], "int32")
        given = {"tokens": tokens, "position": np.full((1, 1), place, "int32"), **kept}
        after = self._file.run(name, given)
        logits = after.pop("logits")
        return sequence[: place + size], put(kept, self._rounded(after), place), logits

    def _rounded(self, after):
        """What an app keeps: integers of `decode`'s inputs, where these are."""
        found = {}
        for name, x in after.items():
            port = self._kept[name.removesuffix("_new").removesuffix("_out")]
            found[name] = port.dequantize(port.quantize(x))
        return found


def put(
    kept: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray], place: int
) -> dict[str, np.ndarray]:
    """What is kept after a step.

    Args:
        kept: What was kept before, by name, shape `(rows, ...)`.
        after: What the step gave for it.
        place: The position of the step's first token.
    """
    result = dict(kept)
    for name, x in after.items():
        if name.endswith("_new"):
            name = name.removesuffix("_new")
            result[name] = kept[name].copy()
            result[name][:, place : place + x.shape[1]] = x
        else:
            result[name.removesuffix("_out")] = x
    return result
