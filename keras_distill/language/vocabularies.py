"""Whether two models read and write the same tokens."""

import hashlib
import itertools
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

#: Sentences on which tokenizers of one vocabulary may still differ: in case, accents and signs.
PROBES = (
    "The quick brown fox jumps over the lazy dog.",
    "ÜBER naïve Straßen — 3,14 € (v2.0)!",
    "don't re-do it; e-mail: a_b@c.de",
    "",
)


def fingerprint(tokenizer: Any) -> str:
    """A digest of a vocabulary, and of how a tokenizer splits a few sentences.

    Args:
        tokenizer: A `keras.layers.TextVectorization`, a tokenizer of KerasHub, the dict from
            tokens to numbers, or the list of tokens in the order of their numbers. Of dicts and
            lists, the tokens alone count.

    Returns:
        64 hexadecimal digits, the same in each process.

    Raises:
        TypeError: If it is something else.
    """
    known = {"tokens": tokens_of(tokenizer), "probes": _probed(tokenizer)}
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()


def require_same_vocabulary(teacher: Any, student: Any) -> None:
    """Raises unless a token has the same number for teacher and student.

    Soft targets, and answers stored for each token, mean nothing to a student that numbers tokens
    in another way, even if its vocabulary is as large.

    Args:
        teacher: The teacher's tokenizer; see `fingerprint`.
        student: The student's.

    Raises:
        TypeError: If one is something else.
        ValueError: If they differ. Says where, and what to do.
    """
    ours, theirs = tokens_of(student), tokens_of(teacher)
    way_out = (
        "What the teacher says of its tokens means nothing to the student then. Distill at "
        "sequence level: have the teacher write text (`keras_distill.language.write_targets`), "
        "and split that by the student's tokenizer."
    )
    for number, (a, b) in enumerate(itertools.zip_longest(theirs, ours)):
        if a != b:
            raise ValueError(
                f"Teacher and student have different vocabularies, of {len(theirs)} and "
                f"{len(ours)} tokens: {number} is {a!r} for the teacher and {b!r} for the student. "
                f"{way_out}"
            )
    found = _probed(teacher) or [], _probed(student) or []
    for probe, a, b in zip(PROBES, *found, strict=False):
        if a == b:
            continue
        raise ValueError(
            "Teacher and student have the same vocabulary, but split text in different ways, for "
            f"example {probe!r}. {way_out}"
        )


def tokens_of(tokenizer: Any) -> list[str]:
    """The tokens of a vocabulary, in the order of their numbers.

    Raises:
        TypeError: If there is none.
    """
    for method in ("get_vocabulary", "get_vocab"):
        if hasattr(tokenizer, method):
            tokenizer = getattr(tokenizer, method)()
            break
    else:
        if hasattr(tokenizer, "id_to_token") and hasattr(tokenizer, "vocabulary_size"):
            return [tokenizer.id_to_token(i) for i in range(tokenizer.vocabulary_size())]
    if isinstance(tokenizer, dict):
        return [str(token) for token in sorted(tokenizer, key=tokenizer.__getitem__)]
    if isinstance(tokenizer, Sequence) and not isinstance(tokenizer, str):
        return [str(token) for token in tokenizer]
    raise TypeError(
        "A tokenizer must be a `keras.layers.TextVectorization`, a tokenizer of KerasHub, a dict "
        f"from tokens to numbers, or a list of tokens. Received: {type(tokenizer).__name__}"
    )


def _probed(tokenizer: Any) -> list | None:
    """The numbers of the tokens of each probe, without padding; `None` of a list or dict."""
    if not isinstance(tokenizer, Callable):  # type: ignore[arg-type]
        return None
    rows = []
    for probe in PROBES:
        numbers = tokenizer([probe])
        numbers = np.asarray(numbers.to_tensor() if hasattr(numbers, "to_tensor") else numbers)
        rows.append([int(number) for number in numbers.reshape(-1) if number != 0])
    return rows
