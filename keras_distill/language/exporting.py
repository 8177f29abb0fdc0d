"""Generation as one `.tflite` file: an encoder, several tokens, and one token, as signatures."""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_distill import _files, backends
from keras_distill.checks import one_of, whole_number
from keras_distill.language import generator_sources
from keras_distill.language.file_reader import FileReader, put
from keras_distill.language.generation import Writing, generate
from keras_distill.language.given import array_of, arrays_of, check_tokens_padded
from keras_distill.language.known_tokens import named_tokens
from keras_distill.language.steps import Steps
from keras_distill.language.text_sources import TextSources
from keras_distill.language.vocabularies import fingerprint, known_of, size_of

#: So many sequences are read step by step, for calibration and to compare with the whole model.
_SEQUENCES = 64
#: So many of their steps, at most, calibrate a file.
_STEPS = 500


@dataclasses.dataclass(frozen=True, eq=False)
class Generator:
    """A file that generates, with what is known of it. `export` makes it.

    Attributes:
        tflite: The file.
        artifacts: The file of each signature alone, as `keras_distill.tflite.convert` made it.
        report: `"sequences"`, how many the file and the model have both written;
            `"same_sequences"`, the share of these that are equal; `"same_tokens"`, the share of the
            model's own tokens that the file writes after those before; `"kept_bytes"`, what an app
            keeps between two tokens; `"length"`, `"start"` and `"end"` as given to `export`;
            `"bytes"`, `"quantization"` and `"signatures"`.
    """

    tflite: bytes
    artifacts: Mapping[str, Any]
    report: dict[str, Any]

    def __repr__(self) -> str:
        return f"<Generator, {len(self.tflite):,} bytes>"

    def predict(self, tokens: Any, inputs: Mapping[str, Any] | None = None) -> np.ndarray:
        """What the file expects after each token, given those before it.

        Args:
            tokens: Sequences, padded with 0 on the right, shape `(samples, tokens)`.
            inputs: The encoder's inputs by name. Defaults to `None`: there is no encoder.

        Returns:
            Logits, float32, shape `(samples, tokens, vocabulary)`, 0 at padding.

        Raises:
            ValueError: The file was exported for other inputs or shorter sequences, tokens aren't
                padded on the right, or one isn't in its vocabulary.
        """
        tokens = array_of("tokens", tokens)
        check_tokens_padded("Sequences", tokens)
        others = {} if inputs is None else {"inputs": inputs}
        with named_tokens({"tokens": tokens, **others}):
            return _read(self.tflite, tokens.astype("int32"), inputs)

    def save(
        self,
        folder: str | os.PathLike,
        name: str = "student",
        *,
        tokenizer: Any = None,
        package: str = "com.example.student",
    ) -> pathlib.Path:
        """Writes the file, the report, and what an app needs beside them to a folder.

        `<name>.tflite` and `<name>.json` are the file and the report. `Generator.kt` runs the file
        in an app. With a tokenizer, `<name>.tokens.json` lists its tokens in the order of their
        ids, and `Tokenizer.kt` computes ids, if `TextSources` can write it. Those that an earlier
        call left there are removed.

        Args:
            folder: The folder.
            name: Name of the file, without its ending: letters, digits, `_`, `-`, `.` and spaces.
            tokenizer: The tokenizer that the model was trained with; see
                `keras_distill.language.fingerprint`, which the report then has as `"tokenizer"`.
            package: Kotlin package.

        Returns:
            Path of the file, which `keras_distill.language.generate` takes.

        Raises:
            TypeError: `tokenizer` isn't one that `fingerprint` takes.
            ValueError: The folder can't be written, `name` or `package` can't be that of files or
                sources, or the tokenizer has tokens that a model of prompts doesn't know. Nothing
                is left half-written.
        """
        from keras_distill.tflite import kit_arguments

        _files.check_folder(folder)
        if not isinstance(name, str) or not re.fullmatch(r"\w[\w. -]*", name):
            raise ValueError(
                "`name` must be the name of a file without its ending, of letters, digits, `_`, "
                f"`-`, `.` and spaces. Received: name={name!r}"
            )
        kit_arguments.check_package(package)
        self._check_size(tokenizer)
        report = dict(self.report)
        files: dict[str, str | bytes] = {f"{name}.tflite": self.tflite}
        files["Generator.kt"] = generator_sources.kotlin(report, f"{name}.tflite", package)
        if tokenizer is not None:
            report["tokenizer"] = fingerprint(tokenizer)
            files[f"{name}.tokens.json"] = json.dumps(known_of(tokenizer), indent=1) + "\n"
            with contextlib.suppress(TypeError):  # There is no source of others.
                files |= TextSources(tokenizer).kotlin(package)
        files[f"{name}.json"] = json.dumps(report, indent=2) + "\n"
        stale = {f"{name}.tokens.json"} - set(files)
        if pathlib.Path(folder, "Generator.kt").exists():
            stale |= {"Tokenizer.kt"} - set(files)
        _files.write_folder(folder, files, stale)
        return pathlib.Path(folder, f"{name}.tflite")

    def _check_size(self, tokenizer):
        """Refuses one that gives tokens for which the file has no row."""
        parts = self.report["signatures"]
        if tokenizer is None or "encode" in parts:  # An encoder may have another vocabulary.
            return
        (words,) = (x["shape"][-1] for x in parts["decode"]["outputs"] if x["name"] == "logits")
        if size_of(tokenizer) > words:
            raise ValueError(
                f"The model knows {words} tokens, and `tokenizer` numbers them from 0 to "
                f"{size_of(tokenizer) - 1}. Give the tokenizer that it was trained with."
            )


def export(
    model: keras.Model,
    inputs: Any,
    *,
    length: int,
    end: int,
    start: int | None = None,
    target: str | None = None,
    prefill: int = 8,
    quantization: str = "float32",
    io: str | None = None,
) -> Generator:
    """Converts a model that writes into a file that reads each token once.

    The file has the signatures `"encode"` (of an encoder and decoder), `"prefill"` (several tokens
    of a prompt) and `"decode"` (one token). What attention and recurrent layers keep of the tokens
    before are inputs and outputs of fixed shapes, named after the layers: `<layer>_keys_new` goes
    into `<layer>_keys` at the tokens' positions, `<layer>_state_0_out` replaces
    `<layer>_state_0`, and what `"encode"` gives goes into the inputs of the same name. All others
    are 0 at first.

    `MultiHeadAttention` and layers derived from it, the attention of KerasHub's models that is
    handed its cache, `LSTM`, `GRU` and `SimpleRNN` can be read token by token, beside all layers
    that look at one token at a time. Positions are looked up in an
    `Embedding` of `ops.arange`, or by a layer with the argument `positions`, such as
    `keras_hub.layers.PositionEmbedding`.

    Args:
        model: A Keras model, as `generate` takes it; its input of tokens has the shape `(None,)`.
        inputs: Prompts, or the model's other inputs, as `generate` takes them: some hundred like
            those in use. The model and the file both go on from them, and in integers the ranges
            are those of the sequences that the model writes.
        length: Tokens of the longest sequence.
        end: As in `generate`.
        start: As in `generate`.
        target: As in `generate`.
        prefill: How many tokens of a prompt are read at once. Without a prompt, with `target`,
            there is no such signature.
        quantization: As in `keras_distill.tflite.convert`; ranges are taken from `inputs`.
        io: `"float32"`, also by default, or `"int8"`: logits and what is kept go in and out as
            integers, each port by its own scale; what comes out by one is rescaled to that of
            `decode`'s input where it is kept.

    Returns:
        The file, and how often it writes what the model does.

    Raises:
        ValueError: A layer can't read token by token, or an argument is wrong. Names the layer.

    Example:

    >>> generator = keras_distill.language.export(
    ...     student, prompts, length=40, end=2, quantization="int8"
    ... )
    >>> generator.save("app")
    >>> keras_distill.language.generate("app/student.tflite", prompts, length=40, end=2)
    """
    backends.require("`keras_distill.language.export`", "tensorflow")
    from keras_distill.tflite import signatures

    whole_number("prefill", prefill, 1)
    if io is not None:
        one_of("io", io, ("float32", "int8"))
    _check_tokens(model, target)
    inputs = arrays_of(inputs, target)
    expected = generate(model, inputs, length=length, end=end, start=start, target=target)
    others = {} if target is None else {n: _narrow(x) for n, x in inputs.items() if n != target}
    steps = Steps(model, {n: x[:1] for n, x in others.items()}, length, target)
    read = {"decode": 1}
    if target is None and min(prefill, length - 1) > 1:
        read = {"prefill": min(prefill, length - 1), **read}
    first = {n: x[:_SEQUENCES] for n, x in others.items()}
    met = Rollout(steps, expected[:_SEQUENCES], first, list(read.values())).met
    parts: dict[str, tuple] = {}
    if steps.encodes:
        # An app has an IntArray or a FloatArray.
        held = {n: x.astype("int32") if x.dtype == "bool" else x for n, x in others.items()}
        parts["encode"] = Part("encode", model, _encoding(steps)), held
    for name, size in read.items():
        parts[name] = Part("read", model, _reading(steps)), met[size]
    artifacts = {name: _converted(*part, quantization, io) for name, part in parts.items()}
    tflite = signatures.joined({name: made.tflite for name, made in artifacts.items()})
    got = np.asarray(Writing(length, end, start, target).write(FileReader(tflite), inputs))
    given = 1 if target is not None else (inputs[:_SEQUENCES] != 0).sum(-1)[:, None]
    report = {
        "bytes": len(tflite),
        "quantization": quantization,
        "length": length,
        "start": start,
        "end": end,
        "kept_bytes": _kept_bytes(artifacts["decode"], steps.all_kept),
        "sequences": len(expected),
        "same_sequences": float((got == expected).all(-1).mean()),
        "same_tokens": _same_tokens(tflite, expected[:_SEQUENCES], first, given),
        "signatures": {
            name: {side: made.ports.reported(side) for side in ("inputs", "outputs")}
            for name, made in artifacts.items()
        },
    }
    return Generator(tflite, artifacts, report)


def _kept_bytes(artifact, all_kept):
    """What is kept, in the types of the file's inputs."""
    names = {kept.name for kept in all_kept}
    ports = (port for port in artifact.ports.inputs if port.name in names)
    return sum(int(np.prod(port.shape)) * np.dtype(port.dtype).itemsize for port in ports)


def _same_tokens(tflite, tokens, others, given):
    """The share of written tokens that a file finds most likely, too, after those before."""
    found = 1 + _read(tflite, tokens, others)[:, :-1, 1:].argmax(-1)
    written = (np.arange(1, tokens.shape[1]) >= given) & (tokens[:, 1:] != 0)
    return float((found == tokens[:, 1:])[written].mean())


def _read(tflite, tokens, others):
    """The logits that a file gives after each token."""
    count, length = tokens.shape
    reader = FileReader(tflite).begin(others, count, length, 1)
    return np.stack([np.asarray(reader(tokens, i)) for i in range(1, length + 1)], axis=1)


def _check_tokens(model, target):
    """Refuses models that take sequences of one length alone."""
    given = getattr(model, "input", None)
    tensor = given.get(target) if isinstance(given, dict) else given
    if tensor is not None and getattr(tensor, "shape", (None, None))[1:2] != (None,):
        raise ValueError(
            f"Model {model.name!r} takes tokens of the shape {tuple(tensor.shape)}, but reads a "
            "few at a time. Build it with `keras.Input((None,))`, and give it the same weights."
        )


def _converted(part, arrays, quantization, io):
    """The artifact of a signature."""
    from keras_distill.tflite import convert

    specs = {
        name: keras.InputSpec(str(x.dtype), (None, *x.shape[1:]), name=name)
        for name, x in arrays.items()
    }
    is_float = quantization in ("float32", "float16", "dynamic")
    return convert(
        part,
        "android",
        quantization,
        calibration=arrays,
        input_signature=specs,
        io=io,
        recurrent=None if is_float else "unroll",
    )


class Part(keras.Model):
    """A function of inputs by name that runs a model, as a model to convert.

    Args:
        name: Its name.
        model: The model, whose weights it reads.
        function: The function.
    """

    def __init__(self, name: str, model: keras.Model, function: Callable):
        super().__init__(name=name)
        self.model = model
        self.function = function

    def call(self, inputs, training=False):
        return self.function(inputs)


def _narrow(x):
    """An input, with numbers of 32 bits."""
    x = np.asarray(x)
    kinds = {"i": "int32", "u": "int32", "f": "float32"}
    return x.astype(kinds.get(x.dtype.kind, x.dtype))


def _encoding(steps):
    """A function that encodes what an app has, in the types that the model is given."""

    def encode(inputs):
        return steps.encode({n: ops.cast(x, steps.others[n].dtype) for n, x in inputs.items()})

    return encode


def _reading(steps):
    """A function that reads the next tokens: the logits after them, and what is kept."""

    def read(inputs):
        kept = {kept.name: inputs[kept.name] for kept in steps.all_kept}
        return steps.read(inputs["tokens"], inputs["position"], kept)

    return read


class Rollout:
    """Sequences read token by token.

    Args:
        steps: The model.
        tokens: Sequences, padded with 0 on the right, shape `(sequences, tokens)`.
        others: The model's other inputs.
        sizes: How many tokens signatures read at once.

    Attributes:
        met: For each of `sizes`, what reading so many tokens is given, where none is padding.

    Raises:
        ValueError: The model gives other logits than as a whole, or no sequence is that long.
    """

    def __init__(
        self,
        steps: Steps,
        tokens: np.ndarray,
        others: Mapping[str, np.ndarray],
        sizes: Sequence[int] = (1,),
    ):
        count, length = tokens.shape
        read = backends.compiled(_reading(steps), steps.model.variables)
        found: dict[int, list[dict[str, np.ndarray]]] = {size: [] for size in sizes}
        kept = {x.name: np.zeros((count, *x.shape), "float32") for x in steps.all_kept}
        if steps.encodes:
            encode = backends.compiled(steps.encode, steps.model.variables)
            kept |= {name: np.asarray(x) for name, x in encode(others).items()}
        logits = []
        for place in range(length):
            given = {"position": np.full((count, 1), place, "int32"), **kept}
            for size in sizes:
                next_tokens = tokens[:, place : place + size]
                rows = np.flatnonzero((next_tokens != 0).all(1))
                if place + size <= length and len(rows):
                    rows = rows[:: -(-len(rows) * length // _STEPS)]
                    arrays = {"tokens": next_tokens, **given}
                    found[size].append({name: x[rows] for name, x in arrays.items()})
            after = read({"tokens": tokens[:, place : place + 1], **given})
            after = {name: np.asarray(x) for name, x in after.items()}
            logits.append(after.pop("logits"))
            kept = put(kept, after, place)
        for size, each in found.items():
            if not each:
                raise ValueError(
                    f"No sequence has `prefill` tokens. Received: prefill={size}, sequences of up "
                    f"to {int((tokens != 0).sum(-1).max())} tokens. Give a smaller `prefill`, or "
                    "longer prompts."
                )
        self.met = {
            size: {name: np.concatenate([x[name] for x in each]) for name in each[0]}
            for size, each in found.items()
        }
        whole = np.asarray(steps.logits(tokens, others))
        off = np.abs(np.stack(logits, axis=1) - whole)[tokens != 0].max()
        if not off <= 1e-3 * max(1.0, float(np.abs(whole).max())):
            raise ValueError(
                f"Model {steps.model.name!r}, read token by token, gives other logits than as a "
                f"whole, by up to {off:.3g}: a layer looks at several tokens and is none of "
                "`MultiHeadAttention`, `LSTM`, `GRU` and `SimpleRNN`, its attention isn't causal, "
                "or positions are none of an `Embedding` of `ops.arange` or of a layer with "
                "`positions`."
            )
