"""Whether two models read and write the same tokens."""

import hashlib
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
        tokenizer: A `keras.layers.TextVectorization`, a tokenizer of KerasHub or Hugging Face, the
            dict from tokens to numbers, or the list of tokens in the order of their numbers. Of
            dicts and lists, tokens and their numbers alone count.

    Returns:
        64 hexadecimal digits, the same in each process.

    Raises:
        TypeError: If it is something else.
        ValueError: If two tokens have one number.
    """
    tokens = tokens_of(tokenizer)
    is_whole = list(tokens) == list(range(len(tokens)))
    listed = list(tokens.values()) if is_whole else list(tokens.items())
    known = {"tokens": listed, "probes": _probed(tokenizer)}
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
        ValueError: If they differ, or two tokens have one number. Says where, and what to do.
    """
    ours, theirs = tokens_of(student), tokens_of(teacher)
    way_out = (
        "What the teacher says of its tokens means nothing to the student then. Distill at "
        "sequence level: have the teacher write text (`keras_distill.language.write_targets`), "
        "and split that by the student's tokenizer."
    )
    for number in sorted({*theirs, *ours}):
        a, b = theirs.get(number), ours.get(number)
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


def tokens_of(tokenizer: Any) -> dict[int, str]:
    """The tokens of a vocabulary by their numbers, ascending.

    Raises:
        TypeError: If there is none.
        ValueError: If two tokens have one number.
    """
    for method in ("get_vocabulary", "get_vocab"):
        if hasattr(tokenizer, method):
            tokenizer = getattr(tokenizer, method)()
            break
    else:
        if hasattr(tokenizer, "id_to_token") and hasattr(tokenizer, "vocabulary_size"):
            return {i: tokenizer.id_to_token(i) for i in range(tokenizer.vocabulary_size())}
    if isinstance(tokenizer, dict):
        numbered: dict[int, str] = {}
        for token in sorted(tokenizer, key=tokenizer.__getitem__):
            number = int(tokenizer[token])
            if number in numbered:
                raise ValueError(
                    "Each token of a vocabulary needs a number of its own. Received: "
                    f"{number} for {numbered[number]!r} and {token!r}"
                )
            numbered[number] = str(token)
        return numbered
    if isinstance(tokenizer, Sequence) and not isinstance(tokenizer, str):
        return {number: str(token) for number, token in enumerate(tokenizer)}
    raise TypeError(
        "A tokenizer must be a `keras.layers.TextVectorization`, a tokenizer of KerasHub or "
        "Hugging Face, a dict from tokens to numbers, or a list of tokens. Received: "
        f"{type(tokenizer).__name__}"
    )


def _probed(tokenizer: Any) -> list | None:
    """The numbers of the tokens of each probe, without padding; `None` of a list or dict."""
    if hasattr(tokenizer, "get_vocab") and hasattr(tokenizer, "encode"):
        # As Hugging Face has them: a list of numbers, or an object that has one.
        found = map(tokenizer.encode, PROBES)
        return [[int(number) for number in getattr(x, "ids", x)] for x in found]
    if not isinstance(tokenizer, Callable):  # type: ignore[arg-type]
        return None
    rows = []
    for probe in PROBES:
        numbers = tokenizer([probe])
        numbers = np.asarray(numbers.to_tensor() if hasattr(numbers, "to_tensor") else numbers)
        rows.append([int(number) for number in numbers.reshape(-1) if number != 0])
    return rows
