"""What an app or firmware needs to turn a text into ids, in Kotlin and C++."""

import dataclasses
from typing import TYPE_CHECKING, Any

import keras

from keras_distill.language.tokenizers import Bytes, HashedWords

if TYPE_CHECKING:
    from keras_distill.tflite import Artifact

_STANDARDS = (None, "lower", "strip_punctuation", "lower_and_strip_punctuation")
#: Units of UTF-16 in a string of the vocabulary: Java has room for 65,535 bytes.
_CHUNK = 8000
#: For each way to split, when a byte is none of the token before it.
_ENDS_IN_KOTLIN = {
    "bytes": "byte in -128..127",
    "words": "isSpace(byte)",
    "characters": "(byte and 0xC0) != 0x80",
}
_ENDS_IN_CPP = {
    "bytes": "(static_cast<void>(byte), true)",
    "words": "IsSpace(byte)",
    "characters": "(byte & 0xC0) != 0x80",
}


@dataclasses.dataclass(frozen=True)
class _Rules:
    """How a text becomes ids.

    Attributes:
        length: How many ids.
        split: `"bytes"`, `"words"` or `"characters"`.
        lowers: Whether letters of ASCII are made lower case.
        strips: Whether punctuation of ASCII is dropped.
        vocabulary: Tokens in the order of their ids, or `None`.
        bins: How many numbers a hash has, 0 without one.
        key: The hash's key.
    """

    length: int
    split: str = "bytes"
    lowers: bool = False
    strips: bool = False
    vocabulary: tuple[str, ...] | None = None
    bins: int = 0
    key: int = 0

    def constants(self, ends: dict[str, str]) -> dict[str, Any]:
        """What both templates are filled with."""
        changed = ["in lower case"] * self.lowers + ["without punctuation"] * self.strips
        hashed = f"hashed to {self.bins} numbers"
        how = {True: hashed, False: "looked up in a vocabulary"}[bool(self.bins)]
        parts = [self.split, *changed, *([how] if self.split != "bytes" else [])]
        return {
            "LENGTH": self.length,
            "LOWERS": str(self.lowers).lower(),
            "STRIPS": str(self.strips).lower(),
            "KEEPS_SPACES": str(self.split != "words").lower(),
            "ENDS": ends[self.split],
            "DOCUMENTED": ", ".join(parts),
        }


class TextSources:
    """A tokenizer in the sources of a kit, for `Artifact.save`.

    For phones, `Tokenizer.kt` has a class whose `ids(text)` gives an `IntArray`; for
    microcontrollers, `<name>_tokenizer.h` has one that writes them to an array, without memory of
    its own beside the vocabulary. Both give the ids that the tokenizer gives in Python.

    Args:
        tokenizer: A `keras.layers.TextVectorization` of words or characters with
            `output_sequence_length`, a `Bytes` or a `HashedWords`.

    Raises:
        TypeError: If it is something else.
        ValueError: If a `TextVectorization` does what the sources can't. Names the argument.

    Example:

    >>> words = keras.layers.TextVectorization(5000, output_sequence_length=32)
    >>> words.adapt(texts)
    >>> artifact.save("app", sources=keras_distill.language.TextSources(words))
    """

    def __init__(self, tokenizer: Any):
        self._rules = _rules(tokenizer)

    def kotlin(
        self, package: str, kotlin_class: str = "the model", artifact: "Artifact | None" = None
    ) -> dict[str, str]:
        """Files for phones, by path.

        Args:
            package: Kotlin package.
            kotlin_class: Name of the kit's class.
            artifact: The `Artifact` that takes the ids, or `None`.

        Raises:
            ValueError: If it takes something else.
        """
        from keras_distill.tflite import names

        rules = self._rules
        self._check(artifact)
        values: dict[str, Any] = {"PACKAGE": package, "CLASS": kotlin_class, "MEMBERS": ""}
        values |= rules.constants(_ENDS_IN_KOTLIN)
        values["CONSTANTS"] = ""
        if rules.bins:
            values["ID"] = filled("hash.kt.inc", {})
            values["CONSTANTS"] = (
                f"        private const val BINS = {rules.bins}\n"
                f"        private const val KEY = {rules.key}L\n"
            )
        elif rules.vocabulary is None:
            values["ID"] = "    private fun id(token: ByteArray) = token[0].toInt() and 0xff\n"
        else:
            joined = "\0".join(rules.vocabulary)
            chunks = [joined[i : i + _CHUNK] for i in range(0, len(joined), _CHUNK)]
            lines = "".join(f"            {names.kotlin_string(chunk)},\n" for chunk in chunks)
            values["MEMBERS"] = _MEMBERS
            values["ID"] = "    private fun id(token: ByteArray) = known[String(token)] ?: 1\n"
            values["CONSTANTS"] = f"        private val CHUNKS = listOf(\n{lines}        )\n"
        return {"Tokenizer.kt": filled("Tokenizer.kt", values)}

    def cpp(self, name: str, artifact: "Artifact | None" = None) -> dict[str, str]:
        """Files for microcontrollers, by path.

        Args:
            name: The kit's namespace.
            artifact: The `Artifact` that takes the ids, or `None`.

        Raises:
            ValueError: If it takes something else.
        """
        rules = self._rules
        self._check(artifact)
        values: dict[str, Any] = {"NAME": name, "GUARD": name.upper()}
        values |= rules.constants(_ENDS_IN_CPP)
        if rules.bins:
            token = filled("hash.h.inc", {"BINS": rules.bins, "KEY": rules.key})
        elif rules.vocabulary is None:
            token = filled("byte.h.inc", {})
        else:
            token = filled("vocabulary.h.inc", _looked_up(rules.vocabulary))
        values["TOKEN"] = token.rstrip("\n")
        return {f"{name}_tokenizer.h": filled("tokenizer.h", values)}

    def _check(self, artifact):
        """Refuses a file whose input isn't that of the ids."""
        if artifact is None:
            return
        shapes = [tuple(port.shape) for port in artifact.ports.inputs]
        if not any(shape[1:] == (self._rules.length,) for shape in shapes):
            raise ValueError(
                f"The tokenizer gives {self._rules.length} ids. Received: a file that takes "
                f"{shapes}"
            )


#: The vocabulary in Kotlin.
_MEMBERS = """    /** The tokens in the order of their ids. */
    val vocabulary: List<String> = CHUNKS.joinToString("").split('\\u0000')

    private val known = vocabulary.withIndex().associate { (id, token) -> token to id }
"""


def _rules(tokenizer: Any) -> _Rules:
    """How a tokenizer makes ids."""
    if isinstance(tokenizer, Bytes):
        return _Rules(tokenizer.length)
    if isinstance(tokenizer, HashedWords):
        return _Rules(
            tokenizer.length, "words", True, True, bins=tokenizer.bins, key=tokenizer.salt
        )
    if not isinstance(tokenizer, keras.layers.TextVectorization):
        raise TypeError(
            "`tokenizer` must be a `keras.layers.TextVectorization`, a "
            "`keras_distill.language.Bytes` or a `keras_distill.language.HashedWords`. Received: "
            f"{type(tokenizer).__name__}"
        )
    given = tokenizer.get_config()
    allowed = {
        "standardize": _STANDARDS,
        "split": ("whitespace", "character"),
        "ngrams": (None,),
        "output_mode": ("int",),
    }
    for argument, values in allowed.items():
        if given[argument] not in values:
            raise ValueError(
                f"In an app, a `TextVectorization` must have {argument!r} as one of "
                f"{list(values)}. Received: {argument}={given[argument]!r}"
            )
    if given["output_sequence_length"] is None:
        raise ValueError(
            "A file takes texts of one length: give the `TextVectorization` "
            "`output_sequence_length`. Received: None"
        )
    vocabulary = tuple(map(str, tokenizer.get_vocabulary()))
    if any("\0" in token for token in vocabulary):
        raise ValueError("A token of the vocabulary has the character 0 in it: drop it.")
    standardize = given["standardize"] or ""
    return _Rules(
        int(given["output_sequence_length"]),
        {"whitespace": "words", "character": "characters"}[given["split"]],
        "lower" in standardize,
        "strip" in standardize,
        vocabulary,
    )


def _looked_up(vocabulary: tuple[str, ...]) -> dict[str, Any]:
    """A vocabulary, sorted, as arrays of C++."""
    from keras_distill.tflite.micro import sources

    ids = sorted((token.encode(), i) for i, token in enumerate(vocabulary) if token)
    begins = [0]
    for token, _ in ids:
        begins.append(begins[-1] + len(token))
    return {
        "BYTES": sources.rows([f"0x{byte:02x}" for token, _ in ids for byte in token]),
        "BEGINS": sources.rows([str(begin) for begin in begins]),
        "IDS": sources.rows([str(i) for _, i in ids]),
        "COUNT": len(ids),
        "LONGEST": max(len(token) for token, _ in ids),
    }


def filled(template: str, values: dict[str, Any]) -> str:
    """A template of this room with every `@NAME@` replaced."""
    from keras_distill.tflite.micro import sources

    return sources.filled(template, values, __package__)
