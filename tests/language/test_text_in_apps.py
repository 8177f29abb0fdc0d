"""Tokenizers in Kotlin and C++ give the ids of Python's, on thousands of sentences."""

import gzip
import os
import shutil
import subprocess

import keras
import numpy as np
import pytest
from keras import layers
from keras_distill.tflite import convert
from sweeps import rest_is_long

from keras_distill import language

#: What real sentences don't have.
MADE_UP = [
    "", " ", "\t\n", "...", "!?", "a", "A-B c_d 'e'", "  two   spaces ", "ÄÖÜ äöü ß ẞ İ ı",
    "naïve café déjà-vu", "日本語 の テキスト", "𝒳 😀👍🏽 👨‍👩‍👧", "e\u0301 vs é",
    "\u00a0nb\u00a0sp\u2003em",
    "a\x0bb\x0cc\rd\x1ce\x85f", "Строка ТЕКСТА", "نص عربي", "x" * 300, "[UNK] [unk]", "\x01\x7f",
    "1,234.5 € $5 @me #tag", "end.\n", "tab\tseparated\tvalues",
]  # fmt: skip


@pytest.fixture(scope="module")
def texts(data_dir):
    """Captions in two languages, news, and what these don't have."""
    found = []
    for name in ("val.de", "val.en", "train.de"):
        path = data_dir / "multi30k" / f"{name}.gz"
        found += gzip.decompress(path.read_bytes()).decode().split("\n")[:1500]
    news = gzip.decompress((data_dir / "ag_news" / "dev.tsv.gz").read_bytes()).decode()
    found += [line.rpartition("\t")[0] for line in news.split("\n")[:1500]]
    assert len(found) > 4000
    return [*MADE_UP, *found]


@pytest.fixture(scope="module")
def tokenizers(texts):
    """By name; vocabularies of half the texts, so that the others have unknown words."""
    found = {"bytes": language.Bytes(40), "hashed": language.HashedWords(12, 5000, salt=133)}
    for name, settings in {
        "words": {"max_tokens": 3000},
        "lower": {"standardize": "lower"},
        "stripped": {"standardize": "strip_punctuation", "max_tokens": 500},
        "characters": {"standardize": None, "split": "character"},
        "few": {"split": "character", "max_tokens": 30},
    }.items():
        found[name] = layers.TextVectorization(output_sequence_length=24, **settings)
        found[name].adapt(texts[::2])
    return found


def ids(tokenizer, texts):
    return np.asarray(tokenizer(texts)).astype("int32")


def test_bytes_and_hashed_words_are_what_they_say():
    found = language.Bytes(5)(["", "ñu", "a" * 9])
    assert found.tolist() == [[0] * 5, [0xC3, 0xB1, 117, 0, 0], [97] * 5]
    found = language.HashedWords(3, bins=50, salt=7)(["A cat, a cat", ""])
    by_keras = keras.layers.Hashing(50, mask_value="", salt=7)(np.array(["a", "cat", "a"]))
    assert found.tolist() == [np.asarray(by_keras).tolist(), [0, 0, 0]]


@pytest.mark.long
def test_kotlin_gives_the_ids_of_python(tokenizers, texts, tmp_path):
    kotlinc = os.environ.get("KOTLINC") or shutil.which("kotlinc")
    if not kotlinc or not shutil.which("java"):
        pytest.skip("name a Kotlin compiler in KOTLINC, and install a Java runtime")
    files = [tmp_path / "Main.kt"]
    lines = []
    for name, tokenizer in tokenizers.items():
        (source,) = language.TextSources(tokenizer).kotlin(f"app.{name}").values()
        files.append(tmp_path / f"{name}.kt")
        files[-1].write_text(source)
        lines.append(
            f"    app.{name}.Tokenizer().let {{ t -> texts.forEach {{ show(t.ids(it)) }} }}\n"
        )
    files[0].write_text(
        "fun show(ids: IntArray) = println(ids.joinToString(\" \"))\n\n"
        "fun main() {\n"
        "    val texts = String(System.`in`.readBytes()).split('\\u0000')\n"
        f"{''.join(lines)}}}\n"
    )  # fmt: skip
    program = tmp_path / "program.jar"
    command = [kotlinc, "-Werror", *map(str, files), "-include-runtime", "-d", str(program)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    compare(["java", "-cp", str(program), "MainKt"], tokenizers, texts)


@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")
@pytest.mark.parametrize(
    "options", rest_is_long(["-std=c++17 -O2", "-std=gnu++14 -O0"], ["-std=c++17 -O2"])
)
def test_cpp_gives_the_ids_of_python(options, tokenizers, texts, tmp_path):
    lines, headers = [], []
    for name, tokenizer in tokenizers.items():
        ((path, source),) = language.TextSources(tokenizer).cpp(name).items()
        assert path == f"{name}_tokenizer.h"
        (tmp_path / path).write_text(source)
        headers.append(f'#include "{path}"\n')
        lines.append(f"  for (const auto& text : texts) Show<{name}::Tokenizer>(text);\n")
    (tmp_path / "main.cc").write_text(
        "#include <cstdio>\n#include <iostream>\n#include <iterator>\n#include <string>\n"
        f"#include <vector>\n{''.join(headers)}"
        "template <typename T> void Show(const std::string& text) {\n"
        "  std::int32_t ids[T::kLength];\n"
        "  T::Ids(text.data(), text.size(), ids);\n"
        '  for (std::int32_t id : ids) std::printf("%d ", static_cast<int>(id));\n'
        '  std::puts("");\n}\n'
        "int main() {\n"
        "  std::vector<std::string> texts(1);\n"
        "  for (std::istreambuf_iterator<char> i(std::cin), end; i != end; ++i) {\n"
        "    if (*i == 0) texts.emplace_back(); else texts.back() += *i;\n  }\n"
        f"{''.join(lines)}}}\n"
    )  # fmt: skip
    flags = ["-Wall", "-Wextra", "-Werror", "-Wconversion", *options.split()]
    command = ["g++", *flags, str(tmp_path / "main.cc"), "-o", str(tmp_path / "main")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    compare([str(tmp_path / "main")], tokenizers, texts)


def compare(command, tokenizers, texts):
    """A program that prints the ids of all texts by each tokenizer."""
    done = subprocess.run(command, input="\0".join(texts).encode(), capture_output=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode().splitlines()
    assert len(lines) == len(texts) * len(tokenizers)
    for i, (name, tokenizer) in enumerate(tokenizers.items()):
        got = [list(map(int, x.split())) for x in lines[i * len(texts) : (i + 1) * len(texts)]]
        want = ids(tokenizer, texts).tolist()
        wrong = [t for t, a, b in zip(texts, got, want, strict=True) if a != b]
        assert not wrong, (name, wrong[:5])
        assert len({j for row in want for j in row}) > 25


def test_what_sources_cant_do_is_refused(texts):
    with pytest.raises(TypeError, match="Received: str"):
        language.TextSources("words")
    with pytest.raises(ValueError, match="give the `TextVectorization` `output_sequence_length`"):
        language.TextSources(layers.TextVectorization(vocabulary=["a"]))
    for setting in ({"ngrams": 2}, {"output_mode": "count"}, {"split": None}):
        tokenizer = layers.TextVectorization(vocabulary=["a"], **setting)
        with pytest.raises(ValueError, match=f"must have '{next(iter(setting))}' as one of"):
            language.TextSources(tokenizer)


@pytest.mark.long
@pytest.mark.parametrize("target", ["android", "micro"])
def test_a_kit_has_the_tokenizer(target, tmp_path):
    inputs = keras.Input((40,), dtype="int32")
    x = layers.GlobalAveragePooling1D()(layers.Embedding(256, 4)(inputs))
    artifact = convert(keras.Model(inputs, layers.Dense(2)(x)), target)
    artifact.save(tmp_path, sources=language.TextSources(language.Bytes(40)))
    if target == "micro":
        assert (tmp_path / "student_tokenizer.h").exists()
    else:
        source = tmp_path / "app/student/src/main/kotlin/Tokenizer.kt"
        assert "those that Student was trained on: bytes" in source.read_text()
    with pytest.raises(ValueError, match="The tokenizer gives 8 ids"):
        artifact.save(tmp_path, sources=language.TextSources(language.Bytes(8)))


@pytest.mark.parametrize("tokenizer", [language.Bytes(4), language.HashedWords(4, 9)])
@pytest.mark.parametrize("texts", ["a dog", [3], b"a dog"])
def test_tokenizers_take_lists_of_strings(tokenizer, texts):
    with pytest.raises(TypeError, match="`texts` must be a list of strings. Received: "):
        tokenizer(texts)


def test_a_salt_has_63_bits():
    assert language.HashedWords(2, 9, salt=2**63 - 1)(["a"]).shape == (1, 2)
    with pytest.raises(ValueError, match=r"`salt` must be below 2 \*\* 63"):
        language.HashedWords(2, 9, salt=2**63)
