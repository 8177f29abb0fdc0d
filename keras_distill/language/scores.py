"""How good language models are: of what they expect, and of what they write."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_distill import taps as tapping
from keras_distill.losses.chunked import Chunked
from keras_distill.outputs import Output


def perplexity(
    model: keras.Model, x: Any, y: Any, weights: Any = None, batch_size: int = 64
) -> float:
    """`exp` of the mean of `−log p(token)` over the tokens that count.

    Args:
        model: A Keras model with logits, or probabilities of a softmax, for each position.
        x: Its inputs, an array or a dict of arrays.
        y: The tokens that come, integers, shape `(samples, length)`.
        weights: Weight of each token, shape `(samples, length)`. Defaults to `None`: 0 where `y`
            is 0, which is padding, else 1.
        batch_size: Samples that are run at a time.

    Returns:
        The perplexity, 1 for a model that knows each token beforehand.
    """
    total, count = _surprise(model, x, y, weights, batch_size)
    return math.exp(total / count)


def bits_per_character(
    model: keras.Model, x: Any, y: Any, texts: Sequence[str], batch_size: int = 64
) -> float:
    """`−log2 p` of all tokens, divided by the number of characters.

    Unlike the perplexity, it compares models of different vocabularies.

    Args:
        model: As in `perplexity`.
        x: As in `perplexity`.
        y: As in `perplexity`.
        texts: The text that each row of `y` stands for.
        batch_size: As in `perplexity`.
    """
    total, _ = _surprise(model, x, y, None, batch_size)
    return total / math.log(2) / sum(map(len, texts))


def exact_match(hypotheses: Sequence, references: Sequence) -> float:
    """The share of texts, or rows of tokens, that equal their reference in full.

    Args:
        hypotheses: What was written.
        references: What should have been, as many.

    Raises:
        ValueError: If there are none, or not as many of both.
    """
    _check_number(hypotheses, references)
    pairs = zip(hypotheses, references, strict=True)
    return sum(bool(np.array_equal(a, b)) for a, b in pairs) / len(references)


def bleu(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """BLEU of a corpus, 0 to 100, as `sacrebleu` computes it by default (`pip install sacrebleu`).

    Args:
        hypotheses: Texts that were written.
        references: One reference for each.

    Raises:
        ImportError: If `sacrebleu` isn't installed.
        ValueError: If there are no texts, or not as many of both.
    """
    _check_number(hypotheses, references)
    return _sacrebleu().corpus_bleu(list(hypotheses), [list(references)]).score


def chrf(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """chrF2 of a corpus, 0 to 100, likewise: F-score of n-grams of characters.

    Args:
        hypotheses: As in `bleu`.
        references: As in `bleu`.

    Raises:
        ImportError: As in `bleu`.
        ValueError: As in `bleu`.
    """
    _check_number(hypotheses, references)
    return _sacrebleu().corpus_chrf(list(hypotheses), [list(references)]).score


def _surprise(model, x, y, weights, batch_size):
    """The sum of `−log p` of tokens, and of their weights."""
    y = np.asarray(y)
    weights = np.asarray(y != 0 if weights is None else weights, "float32")
    # The cross-entropy alone, in chunks of positions.
    loss = Chunked(label_weight=1.0, reduction="none")
    total = 0.0
    for first in range(0, len(y), batch_size):
        rows = slice(first, first + batch_size)
        inputs = keras.tree.map_structure(lambda a, at=rows: ops.convert_to_tensor(a[at]), x)
        output = Output.of(tapping.run(model, (), inputs, "model")[0])
        values = loss((output, ops.convert_to_tensor(y[rows])), output)
        total += float(np.sum(np.asarray(values) * weights[rows], dtype="float64"))
    return total, float(weights.sum(dtype="float64"))


def _check_number(hypotheses, references):
    if len(hypotheses) != len(references) or not len(references):
        raise ValueError(
            "There must be one reference for each text, and at least one. "
            f"Received: {len(hypotheses)} texts, {len(references)} references"
        )


def _sacrebleu():
    try:
        import sacrebleu
    except ImportError as error:
        raise ImportError(
            "BLEU and chrF need sacrebleu: `pip install keras-distill[language]`."
        ) from error
    return sacrebleu
