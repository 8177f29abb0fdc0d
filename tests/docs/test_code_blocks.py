"""Every code block of the README and the guides does what it shows.

The Python blocks of a page run one after another in one namespace, which begins with what a reader
has by then: digits, a teacher, a student. What else a page takes for granted stands in a block in
an HTML comment, run but not shown. A block with a title is a file of that name. Of shell blocks,
the lines that call `keras-distill` are run.
"""

import gzip
import pathlib
import re
import shlex

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_distill
from keras_distill import cli

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
#: Pages that train and convert for so long that `make test-long` runs them.
LONG = {
    *("README", "backends", "command_line", "data", "dense_prediction", "distiller", "evaluation"),
    *("export", "language"),
    *("keras_distillation", "methods", "quantization", "smaller", "streaming", "teachers"),
} | {page.stem for page in PAGES if page.stem.startswith("on_")}
#: What needs a board.
OF_BOARDS = {"prove"}
BLOCK = re.compile(r"^([ ]*)```(\w+)([^\n]*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)


def blocks(page):
    """`(language, title, code, line)` of each block; examples taken from files aside."""
    text = page.read_text()
    for found in BLOCK.finditer(text):
        indent, language, options, code = found.groups()
        if "--8<--" in code:
            continue
        title = re.search(r'title="([^"]+)"', options)
        code = "\n".join(line.removeprefix(indent) for line in code.split("\n"))
        line = text[: found.start()].count("\n") + 1
        yield language, title and title[1], code, line


def network(width, name):
    layers = [
        keras.layers.Conv2D(width, 3, padding="same", activation="relu", name="conv"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(10),
    ]
    return keras.Sequential([keras.Input((8, 8, 1)), *layers], name=name)


LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.fixture(scope="module")
def trained(digits):
    """The weights of a teacher that has seen some digits."""
    teacher = network(16, "teacher")
    teacher.compile("adam", LOSS)
    teacher.fit(*(part[:600] for part in digits), verbose=0)
    return teacher.get_weights()


@pytest.fixture
def namespace(digits, trained, tmp_path, monkeypatch):
    """What a reader has when a page begins, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    images, labels = digits
    np.savez("digits.npz", x=images, y=labels)
    table = ["a,b,kind", *(f"{i % 3 + 0.1 * (i % 7):.1f},{i % 5},{i % 3}" for i in range(150))]
    pathlib.Path("iris.csv.gz").write_bytes(gzip.compress("\n".join(table).encode()))
    pathlib.Path("iris_test.csv").write_text("\n".join(table[:61]))
    teacher, student = network(16, "teacher"), network(4, "student")
    teacher.set_weights(trained)
    for model in (teacher, student):
        model.compile("adam", LOSS, metrics=["accuracy"])
    train = tf.data.Dataset.from_tensor_slices((images[:300], labels[:300]))
    return {
        "__name__": "__main__",
        "keras": keras,
        "np": np,
        "tf": tf,
        "keras_distill": keras_distill,
        "x_train": images[:300],
        "y_train": labels[:300],
        "x_val": images[300:400],
        "y_val": labels[300:400],
        "x_test": images[400:500],
        "y_test": labels[400:500],
        "loss": LOSS,
        "teacher": teacher,
        "student": student,
        "train": train.batch(50),
    }


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.long] * (page.stem in LONG), id=page.stem)
        for page in PAGES
    ],
)
def test_the_blocks_of_a_page_run(page, namespace, capsys):
    for language, title, code, line in blocks(page):
        if title:
            pathlib.Path(title).write_text(code)
        elif language == "python":
            # Errors name the page and its line.
            exec(compile("\n" * line + code, str(page), "exec"), namespace)
        elif language in ("bash", "console", "shell", "sh"):
            for command in commands(code):
                if command[0] == "profile":
                    log_of_a_board(*command[1:])
                assert cli.main([*command, "--verbosity=-1"]) == 0, capsys.readouterr().err


def log_of_a_board(log, file):
    """Writes what a board prints that profiles `--file`."""
    found = keras_distill.tflite.inspect(file.removeprefix("--file="))
    lines = [f"{i},{op.name},{i + 1}" for i, op in enumerate(found.operators)]
    pathlib.Path(log).write_text("\n".join(lines))


def commands(code):
    """The arguments of each call of `keras-distill`, those apart that have a test of their own."""
    for line in code.replace("\\\n", " ").split("\n"):
        words = shlex.split(line.removeprefix("$ "), comments=True)
        if words[:1] == ["keras-distill"] and words[1:] != ["demo"] and words[1] not in OF_BOARDS:
            yield words[1:]


def test_blocks_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "a\n```python\nx = 1\n```\n\n<!--\n```python\ny = 2\n```\n-->\n"
        '    ```python title="n.py"\n    z = 3\n    ```\n'
        "```bash\n$ keras-distill inspect \\\n  a\n```\n"
    )
    found = list(blocks(page))
    assert [(b[0], b[1], b[2].strip(), b[3]) for b in found[:3]] == [
        ("python", None, "x = 1", 2),
        ("python", None, "y = 2", 7),
        ("python", "n.py", "z = 3", 11),
    ]
    assert list(commands(found[3][2])) == [["inspect", "a"]]


def test_every_language_is_known():
    known = {"python", "bash", "console", "shell", "sh", "text", "kotlin", "cpp", "json", "mermaid"}
    for page in PAGES:
        assert {block[0] for block in blocks(page)} <= known, page.name


def test_links_between_pages_exist():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
