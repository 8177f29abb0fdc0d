"""The shape of the house: which way imports run, and how large files are."""

import graphlib
import pathlib
import re
import sys

import pytest

sys.path.append(str(pathlib.Path(__file__).parents[1] / "docs" / "figures"))

import architecture

ROOT = architecture.ROOT

#: What may import what: the later one the earlier ones, never the other way.
ORDERS = (
    ("losses", "match", "objective", "distiller", "evaluation", "tuning", "cli"),
    ("quantization", "tflite"),
)
LONGEST = 500


@pytest.fixture(scope="module")
def imports():
    return architecture.imports()


def room(module):
    """What a module belongs to: a folder of `keras_distill`, or a file of its own."""
    return [*module.split("."), ""][1]


@pytest.mark.parametrize("order", ORDERS, ids=" ".join)
def test_imports_run_one_way(order, imports):
    place = {name: i for i, name in enumerate(order)}
    wrong = {
        f"{module} imports {other}"
        for module, others in imports.items()
        for other in others
        if place.get(room(module), len(order)) < place.get(room(other), 0)
    }
    assert not wrong


def test_imports_have_no_circles(imports):
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        pytest.fail("imports go in a circle: " + " <- ".join(error.args[1]))


def test_rooms_have_no_circles():
    """However the files in them import each other."""
    graph = {name: set() for name in architecture.ROOMS}
    for name, other in architecture.edges():
        graph[name].add(other)
    graphlib.TopologicalSorter(graph).prepare()


def test_picture_agrees_with_the_code():
    """If not, `python docs/figures/architecture.py` draws it anew."""
    drawn = (ROOT / "docs" / "figures" / "architecture.svg").read_text()
    found = set(re.findall(r'data-from="(\w+)" data-to="(\w+)"', drawn))
    assert found == architecture.drawn(architecture.edges())
    assert drawn == architecture.picture()


def test_nobody_inside_imports_the_roof(imports):
    """`import keras_distill` and names taken from it are for users: inside, modules are named."""
    found = {module for module, others in imports.items() if "keras_distill" in others}
    assert not found


def test_files_can_be_read_in_one_sitting():
    files = [*(ROOT / "keras_distill").rglob("*.py"), *(ROOT / "tflite").rglob("*.py")]
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files}
    assert not {path: count for path, count in lines.items() if count > LONGEST}


def test_names_of_test_files_differ():
    """pytest imports each by its bare name: a second one of a name isn't collected."""
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py"]
    assert len(names) == len(set(names))


def test_no_folder_of_tests_hides_a_package():
    """tests/ is searched for imports: `tests/jax` is `jax` to Keras where JAX isn't installed."""
    names = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir()}
    assert not names & {"jax", "torch", "keras", "tensorflow", "numpy"}


def test_nothing_unpickles():
    """A pickle runs whatever code it brings along."""
    words = re.compile(r"\b(pickle|cPickle|dill|shelve|marshal|joblib)\b|allow_pickle=True")
    files = [*ROOT.glob("keras_distill/**/*.py"), *ROOT.glob("tflite/**/*.py")]
    assert len(files) > 100
    found = {
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in files
        for line in path.read_text(encoding="utf-8").splitlines()
        if words.search(line)
    }
    assert not found
