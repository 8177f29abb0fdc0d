"""Whether two models read and write the same tokens."""

import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keras_distill.language.tokenizers import Bytes, HashedWords

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
            dicts and lists, tokens and their numbers alone count. Or a `Bytes`, a `HashedWords`, or
            the path of a `.tflite` file that `Generator.save` wrote with a tokenizer.

    Returns:
        64 hexadecimal digits, the same in each process.

    Raises:
        TypeError: If it is something else.
        ValueError: If two tokens have one number.
    """
    return _digest(known_of(tokenizer))


def known_of(tokenizer: Any) -> dict[str, list | None]:
    """What a fingerprint is of: the tokens, and the numbers of the probes."""
    tokens = tokens_of(tokenizer)
    is_whole = list(tokens) == list(range(len(tokens)))
    listed = list(tokens.values()) if is_whole else [list(item) for item in tokens.items()]
    return {"tokens": listed, "probes": _probed(tokenizer)}


def _digest(known: dict) -> str:
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()


def tokens_file(path: str | os.PathLike) -> pathlib.Path:
    """Where the tokens of a file's tokenizer stand."""
    return pathlib.Path(path).with_suffix(".tokens.json")


def check_tokens_file(path: str | os.PathLike) -> None:
    """Checks that the tokens beside a file are those that it was saved with.

    Args:
        path: Path of the `.tflite` file.

    Raises:
        ValueError: They aren't, or a file beside it is damaged.
    """
    if _saved_with(path):
        _stored(path)


def _saved_with(path: str | os.PathLike) -> str | None:
    """The fingerprint in the report beside a file, `""` where that has none; `None` without one."""
    report = pathlib.Path(path).with_suffix(".json")
    found = _read(report) if report.is_file() else None
    return found.get("tokenizer", "") if isinstance(found, dict) else None


def _stored(path: str | os.PathLike) -> dict:
    """What `known_of` the tokenizer of a file was."""
    tokens, saved = tokens_file(path), _saved_with(path)
    if not tokens.is_file() or saved == "":
        where = "no" if not tokens.is_file() else "it was saved without a tokenizer, unlike"
        raise ValueError(
            f"There are no tokens beside {os.fspath(path)!r}: {where} {tokens.name}. Save it with "
            "`Generator.save(..., tokenizer=...)`, and copy its files together."
        )
    known = _read(tokens)
    if saved is not None and _digest(known) != saved:
        raise ValueError(
            f"The tokens in {tokens} aren't those that {os.fspath(path)!r} was saved with: its ids "
            "mean other words. Copy the files of one `Generator.save` together."
        )
    if not isinstance(known, dict) or not {"tokens", "probes"} <= set(known):
        raise ValueError(_damaged(tokens, "it lacks the tokens or the probes"))
    return known


def _read(file: pathlib.Path) -> Any:
    """The content of a file that `Generator.save` wrote."""
    try:
        return json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(_damaged(file, error)) from None


def _damaged(file: pathlib.Path, why: Any) -> str:
    return (
        f"{file} isn't as `Generator.save` wrote it: {why}. Copy the files of one `Generator.save` "
        "there again, or call it again."
    )


def require_same_vocabulary(teacher: Any, student: Any) -> None:
    """Raises unless a token has the same number for teacher and student.

    Soft targets, and answers stored for each token, mean nothing to a student that numbers tokens
    in another way, even if its vocabulary is as large.

    Args:
        teacher: The teacher's tokenizer, or the path of a file; see `fingerprint`.
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


def size_of(tokenizer: Any) -> int:
    """One more than the largest number that a tokenizer gives.

    Raises:
        TypeError: As in `tokens_of`.
        ValueError: As in `tokens_of`.
    """
    if isinstance(tokenizer, Bytes):
        return 256
    if isinstance(tokenizer, HashedWords):
        return tokenizer.bins
    return 1 + max(tokens_of(tokenizer), default=-1)


def tokens_of(tokenizer: Any) -> dict[int, str]:
    """The tokens of a vocabulary by their numbers, ascending.

    Raises:
        TypeError: If there is none.
        ValueError: If two tokens have one number.
    """
    if isinstance(tokenizer, Bytes | HashedWords):
        return {}
    if isinstance(tokenizer, str | os.PathLike):
        tokens = _stored(tokenizer)["tokens"]
        return dict(enumerate(tokens)) if tokens and isinstance(tokens[0], str) else dict(tokens)
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
    if isinstance(tokenizer, Sequence):
        return {number: str(token) for number, token in enumerate(tokenizer)}
    raise TypeError(
        "A tokenizer must be a `keras.layers.TextVectorization`, a tokenizer of KerasHub or "
        "Hugging Face, a dict from tokens to numbers, a list of tokens, or the path of a file that "
        "was saved with one. Received: "
        f"{type(tokenizer).__name__}"
    )


def _probed(tokenizer: Any) -> list | None:
    """The numbers of the tokens of each probe, without padding; `None` of a list or dict."""
    if isinstance(tokenizer, str | os.PathLike):
        return _stored(tokenizer)["probes"]
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
