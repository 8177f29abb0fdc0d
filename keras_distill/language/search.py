"""The next token, again and again: the most likely one, one drawn, or the best of several beams.

Pure functions of tensors. Token 0 is padding. `next_logits(tokens, position)` is the model: the
logits of the token at `position`, float, shape `(rows, vocabulary)`, given those before it.
"""

from collections.abc import Callable
from typing import Any

from keras import ops

from keras_distill import taps as tapping
from keras_distill._types import Tensor
from keras_distill.outputs import Output
from keras_distill.teachers.base import BaseTeacher

#: The score of what can't be: far below any sum of logarithms, and finite.
_IMPOSSIBLE = -1e9


def reader(model: Any, inputs: Any, target: str | None) -> Callable[[Tensor, Tensor], Tensor]:
    """The `next_logits` of a model.

    Args:
        model: A causal Keras model, or a file as a teacher, whose output at a position is for the
            token after it.
        inputs: Its other inputs, a dict by name, or `None`.
        target: Name of the input that takes the tokens, or `None` if they are the only one.
    """

    def next_logits(tokens, position):
        x = tokens if target is None else {**inputs, target: tokens}
        if isinstance(model, BaseTeacher):
            outputs = model.answer(x)[0]
        else:
            outputs, _ = tapping.run(model, (), x, "model")
        rows, shared, logits = Output.of(outputs).factors_at()
        before = [ops.take(x, position - 1, axis=1) for x in rows]
        return ops.cast(logits(before, shared), "float32")

    return next_logits


def written(
    next_logits: Callable,
    tokens: Tensor,
    given: Tensor,
    end: int,
    draws: Tensor | None = None,
    temperature: float = 1.0,
    ended: Tensor | None = None,
) -> Tensor:
    """Completes sequences, each token the most likely one or drawn by its probability.

    Args:
        next_logits: The model.
        tokens: Integers, shape `(batch, length)`: prompts, with at least one token each.
        given: How many tokens each prompt has, integers, shape `(batch,)`.
        end: The token after which the rest is 0.
        draws: Numbers drawn evenly from 0 to 1, shape `(batch, length)`, or `None` for the most
            likely tokens.
        temperature: By which logits are divided before they are drawn from.
        ended: Whether a sequence has ended before anything is written, bool, shape `(batch,)`, or
            `None`: none has.

    Returns:
        The completed sequences, int32, shape `(batch, length)`.
    """
    tokens, given = ops.cast(tokens, "int32"), ops.cast(given, "int32")
    length = ops.shape(tokens)[1]
    places = ops.arange(length, dtype="int32")

    def step(position, tokens, ended):
        logits = _without_padding(next_logits(tokens, position), end)
        if draws is None:
            chosen = ops.cast(ops.argmax(logits, axis=-1), "int32")
        else:
            chosen = drawn(logits / temperature, ops.take(draws, position, axis=1))
        chosen = ops.where(ended, 0, chosen)
        is_given = position < given
        chosen = ops.where(is_given, ops.take(tokens, position, axis=1), chosen)
        ended = ops.logical_or(
            ended, ops.logical_and(ops.equal(chosen, end), ops.logical_not(is_given))
        )
        tokens = ops.where(ops.equal(places, position)[None], chosen[:, None], tokens)
        return position + 1, tokens, ended

    def is_open(position, tokens, ended):
        return ops.logical_and(position < length, ops.logical_not(ops.all(ended)))

    tokens = ops.where(places[None] < given[:, None], tokens, 0)
    ended = ops.zeros_like(given, dtype="bool") if ended is None else ended
    return ops.while_loop(is_open, step, (ops.min(given), tokens, ended))[1]


def check_end(end: int, words: int) -> None:
    """Raises a `ValueError` if a model of so many words can't write the token `end`."""
    if end >= words:
        raise ValueError(
            f"`end` must be a token that the model can write, below {words}. Received: end={end}"
        )


def _without_padding(logits, end):
    """Logits of which token 0 is never chosen: it would hide what comes after it."""
    words = logits.shape[-1]
    check_end(end, words)
    return ops.where(ops.equal(ops.arange(words), 0), -float("inf"), logits)


def drawn(logits: Tensor, draws: Tensor) -> Tensor:
    """Classes by their probabilities: the one at which the sum of those before passes the draw.

    Args:
        logits: Float, shape `(batch, classes)`.
        draws: Numbers drawn evenly from 0 to 1, shape `(batch,)`.

    Returns:
        Integers, int32, shape `(batch,)`.
    """
    sums = ops.cumsum(ops.softmax(logits), axis=-1)
    below = sums <= ops.cast(draws, sums.dtype)[:, None] * sums[:, -1:]
    classes = ops.sum(ops.cast(below, "int32"), axis=-1)
    return ops.minimum(classes, logits.shape[-1] - 1)


def beam_search(
    next_logits: Callable,
    tokens: Tensor,
    given: Tensor,
    end: int,
    beams: int,
    length_penalty: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Completes sequences by the likeliest continuations that a beam finds.

    Args:
        next_logits: The model, for `batch * beams` rows, the beams of a sequence side by side.
        tokens: Integers, shape `(batch, length)`: prompts, with at least one token each.
        given: How many tokens each prompt has, integers, shape `(batch,)`.
        end: The token after which the rest is 0.
        beams: How many continuations are kept.
        length_penalty: Exponent p: the sum of log-probabilities is divided by `tokens ** p`.

    Returns:
        `(tokens, scores)`, best first: int32 of shape `(batch, beams, length)`, and their
        log-probabilities divided as said, float32, shape `(batch, beams)`.
    """
    length = ops.shape(tokens)[1]
    places = ops.arange(length, dtype="int32")
    given = ops.cast(given, "int32")
    tokens = ops.where(places[None] < given[:, None], ops.cast(tokens, "int32"), 0)
    tokens = ops.repeat(tokens[:, None], beams, axis=1)
    zeros = ops.zeros_like(tokens[:, :, 0])
    first = ops.equal(ops.arange(beams), 0)[None]
    scores = ops.where(first, 0.0, _IMPOSSIBLE) + ops.cast(zeros, "float32")

    def step(position, tokens, scores, lengths, ended):
        logits = next_logits(ops.reshape(tokens, (-1, length)), position)
        logits = _without_padding(logits, end)
        words = logits.shape[-1]
        log_p = ops.reshape(ops.log_softmax(logits), (-1, beams, words))
        # Sequences that have ended, and prompts, go on in one way.
        is_given = (position < given)[:, None]
        fixed = ops.logical_or(ended, is_given)
        only = ops.where(is_given, ops.take(tokens, position, axis=2), 0)
        one = ops.equal(ops.arange(words, dtype="int32"), only[..., None])
        log_p = ops.where(fixed[..., None], ops.where(one, 0.0, 2 * _IMPOSSIBLE), log_p)
        totals = ops.reshape(scores[..., None] + log_p, (-1, beams * words))
        scores, index = ops.top_k(totals, beams)
        index = ops.cast(index, "int32")
        beam, chosen = index // words, index % words
        tokens = ops.take_along_axis(tokens, beam[..., None], axis=1)
        fixed, lengths = (ops.take_along_axis(x, beam, axis=1) for x in (fixed, lengths))
        ended = ops.take_along_axis(ended, beam, axis=1)
        written_now = ops.logical_not(fixed)
        ended = ops.logical_or(ended, ops.logical_and(written_now, ops.equal(chosen, end)))
        tokens = ops.where(ops.equal(places, position), chosen[..., None], tokens)
        return position + 1, tokens, scores, lengths + ops.cast(written_now, "int32"), ended

    def is_open(position, tokens, scores, lengths, ended):
        return ops.logical_and(position < length, ops.logical_not(ops.all(ended)))

    start = (ops.min(given), tokens, scores, zeros, ops.cast(zeros, "bool"))
    _, tokens, scores, lengths, _ = ops.while_loop(is_open, step, start)
    scores = scores / ops.cast(ops.maximum(lengths, 1), "float32") ** length_penalty
    scores, order = ops.top_k(scores, beams)
    return ops.take_along_axis(tokens, order[..., None], axis=1), scores
