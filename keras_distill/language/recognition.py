"""Sequences that a model recognizes by connectionist temporal classification (CTC)."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_distill.language.scores import text_pairs


def decode_ctc(outputs: Any, lengths: Any = None) -> list[np.ndarray]:
    """The most likely token of each frame, repeats merged and blanks left out.

    Class 0 is the blank, as in `keras.losses.CTC`. With `keras.utils.pad_sequences(decoded,
    padding="post")`, what a teacher recognizes is the label of its student.

    Args:
        outputs: Logits or probabilities of a Keras model or a file, shape
            `(samples, frames, classes)`.
        lengths: How many frames each sample has, integers, shape `(samples,)`. Defaults to `None`:
            all.

    Returns:
        For each sample, an int32 array of its tokens.

    Raises:
        ValueError: If `outputs` have another shape, or `lengths` don't fit.

    Example:

    >>> frames = [[[0, 9, 0], [0, 9, 0], [9, 0, 0], [0, 9, 0], [0, 0, 9]]]
    >>> keras_distill.language.decode_ctc(frames)
    [array([1, 1, 2], dtype=int32)]
    """
    outputs = np.asarray(outputs, "float32")
    if outputs.ndim != 3:
        raise ValueError(
            "`outputs` must have the shape (samples, frames, classes). "
            f"Received: outputs of shape {outputs.shape}"
        )
    samples, frames, _ = outputs.shape
    lengths = np.full(samples, frames) if lengths is None else np.asarray(lengths)
    if lengths.shape != (samples,) or not np.isin(lengths, np.arange(frames + 1)).all():
        raise ValueError(
            f"`lengths` must be {samples} whole numbers from 0 to {frames}. "
            f"Received: lengths={lengths!r}"
        )
    if not outputs.size:
        return [np.zeros(0, "int32") for _ in range(samples)]
    (tokens,), _ = keras.ops.ctc_decode(outputs, lengths.astype("int32"), strategy="greedy")
    return [row[row >= 0].astype("int32") for row in keras.ops.convert_to_numpy(tokens)]


def word_error_rate(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Words that are replaced, missing or too many, divided by the words of the references.

    It is that of `jiwer` (`pip install jiwer`), over all texts together, and may exceed 1.

    Args:
        hypotheses: Texts that were recognized.
        references: What was said, one text for each.

    Raises:
        ImportError: If `jiwer` isn't installed.
        TypeError: If they aren't lists of strings.
        ValueError: If there are no words, or not as many of both.

    Example:

    >>> keras_distill.language.word_error_rate(["one too three"], ["one two three four"])
    0.5
    """
    hypotheses, references = text_pairs(hypotheses, references)
    try:
        import jiwer
    except ImportError as error:
        raise ImportError(
            "The word error rate needs jiwer: `pip install keras-distill[language]`."
        ) from error
    if not any(text.split() for text in references):
        raise ValueError("The references hold no words: there is nothing to divide errors by.")
    return jiwer.wer(references, hypotheses)
