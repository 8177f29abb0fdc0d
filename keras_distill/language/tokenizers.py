"""Tokenizers without a vocabulary, which an app and firmware compute likewise."""

import dataclasses
import string
from collections.abc import Iterable

import keras
import numpy as np

from keras_distill import checks
from keras_distill.checks import whole_number


def _encoded(texts: Iterable[str]) -> list[bytes]:
    """Texts in UTF-8."""
    return [text.encode() for text in checks.texts("texts", texts)]


@dataclasses.dataclass(frozen=True)
class Bytes:
    """The bytes of texts in UTF-8, cut or padded with 0.

    Args:
        length: How many.

    Example:

    >>> keras_distill.language.Bytes(6)(["a dog"])
    array([[ 97,  32, 100, 111, 103,   0]], dtype=int32)
    """

    length: int

    def __post_init__(self) -> None:
        whole_number("length", self.length, 1)

    def __call__(self, texts: Iterable[str]) -> np.ndarray:
        """The bytes of each text, int32, shape `(texts, length)`."""
        cut = [text[: self.length].ljust(self.length, b"\0") for text in _encoded(texts)]
        return np.frombuffer(b"".join(cut), "uint8").reshape(-1, self.length).astype("int32")


@dataclasses.dataclass(frozen=True)
class HashedWords:
    """Numbers of words by a hash, without a vocabulary: several words may have the same.

    Letters of ASCII are made lower case, its punctuation is dropped, and words stand between its
    spaces, as `keras.layers.TextVectorization` does. A word's number is that of
    `keras.layers.Hashing(bins, mask_value="", salt=salt)`: SipHash, from 1 to `bins - 1`.

    Args:
        length: How many words of a text count; fewer are padded with 0.
        bins: How many numbers there are, 0 among them.
        salt: The key of the hash, from 0 to 2 ** 63 - 1.

    Example:

    >>> keras_distill.language.HashedWords(4, bins=1000)(["A dog, a cat"])
    """

    length: int
    bins: int
    salt: int = 0

    def __post_init__(self) -> None:
        whole_number("length", self.length, 1)
        whole_number("bins", self.bins, 2)
        whole_number("salt", self.salt, 0)
        if self.salt >= 2**63:
            raise ValueError(f"`salt` must be below 2 ** 63. Received: salt={self.salt}")

    def __call__(self, texts: Iterable[str]) -> np.ndarray:
        """The words' numbers, int32, shape `(texts, length)`."""
        drop = string.punctuation.encode()
        words = [text.lower().translate(None, drop).split() for text in _encoded(texts)]
        rows = [(each + [b""] * self.length)[: self.length] for each in words]
        hashing = keras.layers.Hashing(self.bins, mask_value="", salt=self.salt)
        hashed = hashing(np.array(rows, object).reshape(-1, self.length))
        return keras.ops.convert_to_numpy(hashed).astype("int32")
