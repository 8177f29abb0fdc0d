"""How good language models are: of what they expect, and of what they write."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_distill import checks
from keras_distill import taps as tapping
from keras_distill.language.known_tokens import check_tokens
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
            is 0, which is padding, else 1. Negative labels (-100, say) and positions that the
            model masks don't count.
        batch_size: Samples that are run at a time.

    Returns:
        The perplexity, 1 for a model that knows each token beforehand.

    Raises:
        ValueError: If no token counts, or one isn't of the model's vocabulary; if shapes or numbers
            of samples differ, tokens aren't whole numbers, weights aren't finite numbers of at
            least 0, or `batch_size` isn't a whole number of at least 1.
    """
    total, count = _surprise(model, x, y, weights, batch_size)
    if count <= 0:
        raise ValueError(
            f"No token counts: all are padding, negative, masked, or of weight 0. Received: y={y!r}"
        )
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

    Returns:
        Bits per character, 0 for a model that knows each token beforehand.

    Raises:
        TypeError: If `texts` isn't a list of strings.
        ValueError: If there isn't one text for each row of `y`, or all are empty; or as in
            `perplexity`.
    """
    texts = checks.texts("texts", texts)
    characters = sum(map(len, texts))
    if len(texts) != len(y) or not characters:
        raise ValueError(
            "There must be one text for each row of `y`, with at least one character in all. "
            f"Received: {len(texts)} texts of {characters} characters, {len(y)} rows"
        )
    total, _ = _surprise(model, x, y, None, batch_size)
    return total / math.log(2) / characters


def exact_match(hypotheses: Sequence, references: Sequence) -> float:
    """The share of texts, or rows of tokens, that equal their reference in full.

    Args:
        hypotheses: What was written.
        references: What should have been, as many.

    Raises:
        TypeError: If one is a single string.
        ValueError: If there are none, or not as many of both.
    """
    _check_number(hypotheses, references)
    pairs = zip(hypotheses, references, strict=True)
    return sum(bool(np.array_equal(a, b)) for a, b in pairs) / len(references)


def keystrokes_saved(
    logits: np.ndarray, words: Sequence[str], vocabulary: Sequence[str], suggestions: int = 3
) -> float:
    """The share of keys that a keyboard's suggestions save who types these words.

    Before each key, the likeliest words that begin with the letters typed so far are suggested. A
    word is chosen as soon as it is among them: one key, which also types the space after it. Of
    words that are equally likely, those of lower tokens are suggested. What is saved is
    `1 - keys / keys without suggestions`, where a word of n letters takes n + 1 keys.

    Source: Trnka and McCoy, "Evaluating Word Prediction: Framing Keystroke Savings" (ACL 2008).

    Args:
        logits: What a model expects before each word, float, shape `(words, tokens)`.
        words: The words that are typed.
        vocabulary: The word of each token, `""` for those that aren't suggested; tokens beyond
            aren't, either.
        suggestions: How many words are suggested at once.

    Returns:
        The share, from 0 (nothing is suggested in time) to less than 1.

    Raises:
        TypeError: `words` or `vocabulary` aren't lists of strings.
        ValueError: There aren't logits for each word and token, they hold NaN, or there are no
            words.
    """
    checks.whole_number("suggestions", suggestions, 1)
    words, vocabulary = checks.texts("words", words), checks.texts("vocabulary", vocabulary)
    tokens = {word: i for i, word in enumerate(vocabulary) if word}
    logits = np.asarray(logits)
    shape = logits.shape
    if len(shape) != 2 or not shape[0] or shape[0] != len(words) or shape[1] < len(vocabulary):
        raise ValueError(
            "`logits` must have the shape (words, tokens), with one word at least. Received: shape "
            f"{shape}, {len(words)} words, a vocabulary of {len(vocabulary)}"
        )
    if np.isnan(logits).any():
        raise ValueError(
            f"`logits` hold NaN, first for word {np.argwhere(np.isnan(logits))[0][0]}."
        )
    # By how many letters are typed: the number of each token's first letters.
    numbers: dict[str, int] = {}
    begins = [
        np.array([numbers.setdefault(word[:i], len(numbers)) for word in vocabulary])
        for i in range(max(map(len, tokens), default=0))
    ]
    suggested = np.array([bool(word) for word in vocabulary])
    saved = 0
    for word, row in zip(words, logits, strict=True):
        if word in tokens:
            token, row = tokens[word], row[: len(vocabulary)]
            # Of equals, as integers often are, the first comes first.
            tied = (row == row[token]) & (np.arange(len(row)) < token)
            likelier = suggested & ((row > row[token]) | tied)
            for typed in range(len(word)):
                if (likelier & (begins[typed] == begins[typed][token])).sum() < suggestions:
                    saved += len(word) - typed
                    break
    return saved / sum(len(word) + 1 for word in words)


def bleu(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """BLEU of a corpus, 0 to 100, as `sacrebleu` computes it by default (`pip install sacrebleu`).

    Args:
        hypotheses: Texts that were written.
        references: One reference for each.

    Raises:
        ImportError: If `sacrebleu` isn't installed.
        TypeError: If they aren't lists of strings.
        ValueError: If there are no texts, or not as many of both.
    """
    hypotheses, references = text_pairs(hypotheses, references)
    return _sacrebleu().corpus_bleu(hypotheses, [references]).score


def chrf(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """chrF2 of a corpus, 0 to 100, likewise: F-score of n-grams of characters.

    Args:
        hypotheses: As in `bleu`.
        references: As in `bleu`.

    Raises:
        ImportError: As in `bleu`.
        TypeError: As in `bleu`.
        ValueError: As in `bleu`.
    """
    hypotheses, references = text_pairs(hypotheses, references)
    return _sacrebleu().corpus_chrf(hypotheses, [references]).score


def _surprise(model, x, y, weights, batch_size):
    """The sum of `−log p` of tokens, and of their weights."""
    checks.whole_number("batch_size", batch_size, 1)
    y, weights = _labels(y, weights)
    sizes = {len(y), *((np.shape(leaf) or (0,))[0] for leaf in keras.tree.flatten(x))}
    if len(sizes) > 1:
        raise ValueError(
            "`x` and `y` must hold the same number of samples. Received: "
            f"{len(y)} rows of `y`, and inputs of {sorted(sizes - {len(y)})}"
        )
    check_tokens(model, x)
    # The cross-entropy alone, in chunks of positions.
    loss = Chunked(label_weight=1.0, reduction="none")
    total = count = 0.0
    for first in range(0, len(y), batch_size):
        rows = slice(first, first + batch_size)
        inputs = keras.tree.map_structure(lambda a, at=rows: ops.convert_to_tensor(a[at]), x)
        output = Output.of(tapping.run(model, (), inputs, "model")[0])
        if tuple(output.shape[:-1]) != y[rows].shape:
            raise ValueError(
                "`y` must hold a token for each position of the model's outputs. Received: y of "
                f"shape {y.shape}; of {len(y[rows])} samples, outputs of {tuple(output.shape)}"
            )
        if y[rows].max(initial=0) >= output.shape[-1]:
            raise ValueError(
                f"The model knows tokens below {output.shape[-1]}. Received: y with "
                f"{y[rows].max()}. Give it the labels of its own tokenizer, and ones that don't "
                "count a negative number."
            )
        counted = weights[rows]
        if output.mask is not None:
            counted = counted * np.asarray(output.mask)
        values = loss((output, ops.convert_to_tensor(y[rows])), output)
        total += float(np.sum(np.asarray(values) * counted, dtype="float64"))
        count += float(counted.sum(dtype="float64"))
    return total, count


def _labels(y, weights):
    """Tokens, integers, and the weight of each, float32, 0 of negative ones."""
    y = np.asarray(y)
    if y.dtype.kind not in "iuf" or not y.ndim or (y % 1 != 0).any():
        wrong = y[y % 1 != 0][:1] if y.dtype.kind == "f" and y.ndim else y.dtype
        raise ValueError(
            "`y` must be tokens, whole numbers of shape (samples, length). "
            f"Received: y of shape {y.shape} with {wrong}"
        )
    weights = np.asarray(y != 0 if weights is None else weights, "float32")
    if weights.shape != y.shape:
        raise ValueError(
            f"`weights` must have the shape of `y`, {y.shape}, a weight for each token. "
            f"Received: weights of shape {weights.shape}"
        )
    if not (np.isfinite(weights) & (weights >= 0)).all():
        wrong = weights[~(np.isfinite(weights) & (weights >= 0))][0]
        raise ValueError(f"`weights` must be finite and at least 0. Received: {wrong}")
    return y.astype("int64"), weights * (y >= 0)


def text_pairs(hypotheses: Sequence[str], references: Sequence[str]) -> tuple[list, list]:
    """Texts and their references as lists.

    Raises:
        TypeError: If they aren't lists of strings.
        ValueError: If there are none, or not as many of both.
    """
    pairs = checks.texts("hypotheses", hypotheses), checks.texts("references", references)
    _check_number(*pairs)
    return pairs


def _check_number(hypotheses, references):
    """Raises unless there is a reference for each text, and one at least."""
    for name, given in (("hypotheses", hypotheses), ("references", references)):
        if isinstance(given, str | bytes):
            raise TypeError(
                f"`{name}` must be a list of texts, or of rows of tokens. "
                f"Received: {name}={given!r}"
            )
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
