"""Text that Keras models write: for use, and as targets of a student."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_distill import backends
from keras_distill._types import Tensor
from keras_distill.checks import number, positive, whole_number
from keras_distill.language.able import check_file, check_model
from keras_distill.language.file_reader import FileReader
from keras_distill.language.given import arrays_of, check_named, check_prompts
from keras_distill.language.known_tokens import check_tokens, named_tokens
from keras_distill.language.likeness import log_bleu
from keras_distill.language.search import beam_search, check_end, reader, written
from keras_distill.language.vocabularies import check_tokens_file
from keras_distill.teachers import BaseTeacher, Function, LiteRT, store
from keras_distill.teachers.base import contents_of
from keras_distill.teachers.rows import single_examples


@dataclasses.dataclass(frozen=True)
class Writing:
    """How sequences are written; see `generate`."""

    length: int
    end: int
    start: int | None = None
    target: str | None = None
    beams: int = 1
    length_penalty: float = 1.0
    temperature: float | None = None
    interpolate: bool = False

    def __post_init__(self):
        whole_number("length", self.length, 2)
        whole_number("end", self.end, 1)
        whole_number("beams", self.beams, 1)
        number("length_penalty", self.length_penalty)
        if self.temperature is not None:
            positive("temperature", self.temperature)
            if self.beams > 1:
                raise ValueError(
                    "Tokens are drawn, or searched for by beams: give `temperature` or `beams`. "
                    f"Received: temperature={self.temperature}, beams={self.beams}"
                )
        if (self.target is None) != (self.start is None):
            raise ValueError(
                "`target`, the name of the decoder's input, and `start`, its first token, belong "
                "together; a model that continues prompts needs neither. "
                f"Received: target={self.target!r}, start={self.start!r}"
            )
        if self.start is not None:
            whole_number("start", self.start, 1)
        if self.interpolate and (self.target is None or self.beams == 1):
            raise ValueError(
                "`interpolate` chooses among several beams by references, which are the input "
                f"`target`. Received: target={self.target!r}, beams={self.beams}"
            )

    def write(self, model: Any, inputs: Any, draws: Tensor | None = None) -> Tensor:
        """Sequences for a batch of inputs, int32, shape `(batch, length)`."""
        if self.target is None:
            prompts, inputs = ops.cast(inputs, "int32"), None
            given = ops.sum(ops.cast(ops.not_equal(prompts, 0), "int32"), axis=-1)
            tokens = _fitted(prompts, self.length)
        else:
            references = self._references(inputs)
            inputs = _others(inputs, self.target)
            batch = ops.shape(keras.tree.flatten(inputs)[0])[0]
            given = ops.ones((batch,), dtype="int32")
            tokens = ops.full((batch, self.length), self.start, dtype="int32")
        next_logits = self._reader(model, inputs, tokens.shape[0])
        if self.beams == 1:
            return written(next_logits, tokens, given, self.end, draws, self.temperature or 1.0)
        found = beam_search(next_logits, tokens, given, self.end, self.beams, self.length_penalty)
        if not self.interpolate:
            return found[0][:, 0]
        best = ops.argmax(log_bleu(found[0], references), axis=-1)
        return ops.take_along_axis(found[0], best[:, None, None], axis=1)[:, 0]

    def check(self, model: Any, inputs: Any) -> None:
        """Refuses what a model can't go on from.

        Args:
            model: A Keras model, or a file as `write` takes it.
            inputs: Arrays, as `given.arrays_of` makes them.

        Raises:
            ValueError: If it can't. Says why.
        """
        if self.target is None:
            check_prompts(inputs, self.length)
            inputs = np.asarray(inputs, "int32")
        else:
            inputs = _others(inputs, self.target)
        if isinstance(model, keras.Model):
            check_tokens(model, inputs, self.target, self.start)
            check_model(model, inputs, self.length, self.end, self.target, self.start)
        elif isinstance(model, FileReader):
            check_end(self.end, model.words)
            others = None if self.target is None else inputs
            model.fitting(others, len(keras.tree.flatten(inputs)[0]), self.length)
        else:
            check_file(model, inputs, self.length, self.end, self.target)

    def _references(self, inputs: Any) -> Tensor | None:
        if not self.interpolate:
            return None
        if not isinstance(inputs, dict) or self.target not in inputs:
            raise ValueError(
                f"`interpolate` needs the references as the input {self.target!r}. Received: "
                f"{sorted(inputs) if isinstance(inputs, dict) else type(inputs).__name__}"
            )
        return ops.cast(inputs[self.target], "int32")

    def _reader(self, model: Any, inputs: Any, count: int) -> Callable:
        """The `next_logits` of a search."""
        if isinstance(model, FileReader):
            return model.begin(inputs, count, self.length, self.beams)
        if inputs is not None and self.beams > 1:
            inputs = {name: ops.repeat(x, self.beams, axis=0) for name, x in inputs.items()}
        return reader(model, inputs, self.target)


def generate(
    model: keras.Model | str | os.PathLike,
    inputs: Any,
    *,
    length: int,
    end: int,
    start: int | None = None,
    target: str | None = None,
    beams: int = 1,
    length_penalty: float = 1.0,
    temperature: float | None = None,
    seed: int = 0,
    batch_size: int = 64,
) -> np.ndarray:
    """Has a model write sequences: greedily, by beam search, or by drawing tokens.

    The model is causal, and its output at a position is for the token after it. It is run on the
    whole sequence for each token; a file that `export` made reads each token once. Token 0 is
    padding.

    Args:
        model: A Keras model: one that continues prompts, with the tokens so far as its only input,
            or an encoder and decoder, with the decoder's tokens as the input `target`. Or the path
            of a `.tflite` file, which LiteRT runs: one that `export` made, or `convert` of a model
            for sequences of `length` tokens.
        inputs: Prompts, integers, shape `(samples, tokens)`, padded with 0 on the right; or, with
            `target`, a dict of the model's other inputs.
        length: Tokens of a sequence that is returned, with prompt or start.
        end: The token that ends a sequence.
        start: With `target`, the token that begins the decoder's input.
        target: Name of the decoder's input. Defaults to `None`: the model continues prompts.
        beams: How many continuations are searched side by side. Defaults to `1`: each token is the
            most likely one.
        length_penalty: Exponent p by which beams of different lengths are compared: the sum of
            log-probabilities divided by `tokens ** p`.
        temperature: If given, tokens are drawn from `softmax(logits / temperature)`.
        seed: Seed of the draws.
        batch_size: Sequences that are written at a time.

    Returns:
        Tokens, int32, shape `(samples, length)`: prompt or start, what was written up to `end`,
        and 0 after it.

    Raises:
        TypeError: If `length_penalty` or `temperature` is no number.
        ValueError: If a number is out of range, inputs aren't as described, or prompts leave no
            room; if a model can't read `length` tokens or such inputs, has several outputs, or is
            stateful; if a file is for other inputs or another length, its outputs are
            probabilities, or what stands beside it is damaged or of another tokenizer.

    Example:

    >>> keras_distill.language.generate(
    ...     model, {"source": x_test}, target="target", start=1, end=2, length=30, beams=4
    ... )
    """
    writing = Writing(length, end, start, target, beams, length_penalty, temperature)
    whole_number("batch_size", batch_size, 1)
    whole_number("seed", seed, 0)
    inputs = arrays_of(inputs, target)
    count = len(keras.tree.flatten(inputs)[0])

    def write(batch):
        return writing.write(model, batch["inputs"], batch.get("draws"))

    if not isinstance(model, keras.Model):
        model = _opened(model)
    writing.check(model, inputs)
    if isinstance(model, keras.Model):
        compiled = backends.compiled(write, model.variables)
    else:
        compiled = named_tokens(inputs, start)(write)
    draws = np.random.default_rng(seed).random((count, length), "float32")
    found = []
    for first in range(0, count, batch_size):
        # All batches are of one size, for which the function is compiled.
        rows = np.minimum(np.arange(first, first + batch_size), count - 1)
        batch = {"inputs": keras.tree.map_structure(lambda x, at=rows: x[at], inputs)}
        if temperature is not None:
            batch["draws"] = draws[rows]
        found.append(np.asarray(compiled(batch))[: count - first])
    return np.concatenate(found)


def write_targets(
    teacher: keras.Model | str | os.PathLike,
    dataset: Any,
    path: Any,
    *,
    length: int,
    end: int,
    start: int | None = None,
    target: str | None = None,
    beams: int = 4,
    length_penalty: float = 1.0,
    interpolate: bool = False,
    batch_size: int = 32,
    verbose: int = 1,
) -> np.ndarray:
    """Writes a teacher's own sequences to all inputs once, on which a student is then trained.

    This is distillation at sequence level: the student learns the sequence that the teacher's
    beam search finds, by the usual cross-entropy, with `compile` and `fit` of Keras alone. Its
    tokenizer may be another one.

    What is written is kept as `keras_distill.teachers.store` keeps answers: in shards with
    checksums. Called again after an interruption, it goes on where it was, with the same result;
    called once more, it reads what is there.

    Source: Kim and Rush, "Sequence-Level Knowledge Distillation" (arXiv:1606.07947), section 3.2;
    they search with 5 beams.

    Args:
        teacher: The model that writes, or the path of a file, as in `generate`. A file that
            `export` made reads each token once: this is many times as fast.
        dataset: Inputs of single examples, in a fixed order: an array, a dict of arrays, or a
            `tf.data.Dataset`.
        path: The folder to write.
        length: As in `generate`.
        end: As in `generate`.
        start: As in `generate`.
        target: As in `generate`.
        beams: As in `generate`.
        length_penalty: As in `generate`.
        interpolate: With `target`, of the beams the one is written that is most like the reference
            (by BLEU of sentences), which `dataset` has as the input `target` (section 3.3 there).
        batch_size: As in `generate`.
        verbose: 0 shows no progress bar.

    Returns:
        Tokens, int32, shape `(samples, length)`, as `generate` returns them.

    Raises:
        ValueError: If the folder holds what another teacher wrote, or from other inputs, or with
            other settings, or a shard is damaged; or as in `generate`. Names the fix.

    Example:

    >>> targets = keras_distill.language.write_targets(
    ...     teacher, {"source": x}, "targets", target="target", start=1, end=2, length=30
    ... )
    >>> student.fit({"source": x, "target": targets[:, :-1]}, targets[:, 1:])
    """
    writing = Writing(length, end, start, target, beams, length_penalty, interpolate=interpolate)
    is_model = isinstance(teacher, keras.Model)
    writer = Writer(teacher, writing) if is_model else FileWriter(teacher, writing)
    if not isinstance(dataset, tf.data.Dataset):
        dataset = arrays_of(dataset, target)
    # Answers are stored with checksums: what is wrong must not get there.
    for inputs in _batches(dataset):
        writing.check(writer.model, inputs)
    try:
        stored = store(
            writer, dataset, path, dtype="float32", batch_size=batch_size, verbose=verbose
        )
    except tf.errors.OpError:
        if writer.refusal is None:
            raise
        raise writer.refusal from None
    batches = stored.attach(dataset).batch(256)
    try:
        found = [np.asarray(stored.answer(batch[0])[0].values) for batch in batches]
    except tf.errors.OpError as error:
        if "isn't the one" not in str(error):
            raise
        raise ValueError(
            f"The sequences at {path} were written from other inputs. Write these elsewhere."
        ) from None
    return np.concatenate(found).astype("int32")


class Writer(BaseTeacher):
    """Answers with the sequences that a model writes, as floats.

    Args:
        model: The model.
        writing: How it writes.
    """

    supports_jit = False

    def __init__(self, model: keras.Model, writing: Writing):
        self.model = model
        self.writing = writing
        self.name = model.name
        self.refusal: ValueError | None = None

    def answer(self, inputs: Any, taps: Any = ()) -> tuple:
        tokens = self.writing.write(self.model, self.student_inputs(inputs))
        return ops.cast(tokens, "float32"), []

    @property
    def variables(self) -> list:
        return self.model.variables

    def contents(self) -> Iterable:
        settings = dataclasses.asdict(self.writing)
        return [type(self).__name__, settings, *contents_of(self.model.weights)]


class FileWriter(Function):
    """Answers with the sequences that a file writes, as floats.

    Args:
        path: The file.
        writing: How it writes.

    Attributes:
        model: What `Writing.write` takes.
        refusal: The error that inputs have last led to, without what TensorFlow says about it.
    """

    def __init__(self, path: str | os.PathLike, writing: Writing):
        self.model, path = _opened(path), pathlib.Path(path)
        self.refusal: ValueError | None = None

        def write(inputs):
            try:
                with named_tokens(inputs, writing.start):
                    return np.asarray(writing.write(self.model, inputs), "float32")
            except ValueError as error:
                self.refusal = error
                raise

        super().__init__(write, tf.TensorSpec((None, writing.length)), path.stem)
        self._contents = [type(self).__name__, dataclasses.asdict(writing), path.read_bytes()]

    def own_contents(self) -> Iterable:
        return self._contents


def _batches(dataset):
    """The inputs of a dataset of single examples, many at a time, as arrays."""
    try:
        for batch in single_examples(dataset).batch(1024):
            yield keras.tree.map_structure(np.asarray, batch.inputs)
    except tf.errors.InvalidArgumentError as error:
        if "batch" not in str(error):
            raise
        raise ValueError(
            "The examples of `dataset` must be of one shape, tokens padded with 0 on the right. "
            "Received: several. Pad them, as `dataset.padded_batch(n).unbatch()` does."
        ) from None


def _opened(path):
    """A file as what `Writing.write` takes."""
    from keras_distill.tflite.inspect import inspect

    path = pathlib.Path(path)
    check_tokens_file(path)
    if path.is_file() and "decode" in inspect(path.read_bytes()).signatures:
        return FileReader(path.read_bytes())
    model = LiteRT(path)
    model.require_logits(True)
    return model


def _fitted(prompts, length):
    """Prompts with room for `length` tokens."""
    room = length - prompts.shape[1]
    return ops.pad(prompts, ((0, 0), (0, room))) if room > 0 else prompts[:, :length]


def _others(inputs, target):
    """The inputs of a model other than `target`."""
    check_named(inputs, target)
    return {name: x for name, x in inputs.items() if name != target}
