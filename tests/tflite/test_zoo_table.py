"""The zoo's table of layers and students: within the limits or refused by name, and still so."""

import pathlib
import re

import pytest
import zoo_layers
import zoo_models
import zoo_table

#: What is tried in each run, converted together: neither loops nor what is refused.
SLICE = {
    (8, 6): ["Conv1D", "LayerNormalization", "Activation gelu", "MaxPooling1D", "ops.where"],
    (8, 8, 4): ["AdaptiveAveragePooling2D", "DepthwiseConv2D", "UpSampling2D", "RandomFlip"],
}
STUDENTS = ["inception", "encoder"]
#: What names where the fault is, or what to do.
NAMES = re.compile(r"[Ll]ayer '?\w|[Oo]perat|op:|Node \w|TFLite Micro|kernels/|has no|Give `")

CASES = [(column, shape) for column in zoo_table.COLUMNS for shape in zoo_table.GROUPS]
MODELS = [(c, name) for c in zoo_table.COLUMNS for name in zoo_table.wanted(c)[1]]


@pytest.fixture(scope="module")
def table():
    return zoo_table.load()


def test_table_holds_every_layer_and_student_on_every_target(table):
    layers = [name for names in zoo_table.GROUPS.values() for name in names]
    assert len(layers) >= 60
    assert len(zoo_models.MODELS) >= 30
    for row in (*layers, *zoo_models.MODELS):
        assert set(zoo_table.IN_INT8) <= table[row].keys(), row


def test_every_file_is_within_the_limits_or_refused_by_name(table):
    for row, outcomes in table.items():
        for column, value in outcomes.items():
            if isinstance(value, str):
                assert NAMES.search(value), (row, column, value)
            else:
                assert value <= zoo_table.limit(column), (row, column)


def test_page_shows_the_table():
    text = zoo_table.PAGE.read_text()
    assert text.partition(zoo_table.BEGIN)[2].partition(zoo_table.END)[0].strip() == (
        zoo_table.page().strip()
    )


def test_workflow_runs_every_column_in_one_part():
    workflow = pathlib.Path(__file__).parents[2] / ".github" / "workflows" / "tests.yml"
    parts = re.findall(r'- "test_zoo_table and (.*)"', workflow.read_text())

    def holds(part, column):
        words = r"\b(?!and\b|or\b)[\w-]+"  # As `pytest -k` reads them.
        return eval(re.sub(words, lambda word: str(word[0] in column), part))

    assert [sum(holds(p, c) for p in parts) for c in zoo_table.COLUMNS] == [1] * len(
        zoo_table.COLUMNS
    )


def check(found, table, column):
    for row, value in found.items():
        recorded = table[row][column]
        assert zoo_table.agree(value, recorded), (column, row, value, recorded)


@pytest.mark.long
@pytest.mark.parametrize("shape", SLICE, ids=str)
@pytest.mark.parametrize("column", ["android int8", "micro int8"])
def test_slice_of_the_layers(table, column, shape):
    check(zoo_table.of_layers(shape, SLICE[shape], column), table, column)


@pytest.mark.long
@pytest.mark.parametrize("name", STUDENTS)
def test_slice_of_the_students(table, name):
    check({name: zoo_table.of_student(name, "micro int8")}, table, "micro int8")


def test_refusal_of_a_layer(table):
    found = zoo_table.of_layers((8, 6), ["ops.argmax"], "android int8")
    check(found, table, "android int8")


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("column", "shape"), CASES, ids=str)
def test_layers(table, column, shape):
    names = [n for n in zoo_table.wanted(column)[0][shape] if column in table[n]]
    refused = [n for n in names if isinstance(table[n][column], str)]
    check(zoo_table.of_layers(shape, [n for n in names if n not in refused], column), table, column)
    for name in refused:
        check(zoo_table.of_layers(shape, [name], column), table, column)


@pytest.mark.nightly
@pytest.mark.parametrize(("column", "name"), MODELS)
def test_student(table, column, name):
    if column in table[name]:
        check({name: zoo_table.of_student(name, column)}, table, column)


def test_layers_of_a_model_are_outputs_of_their_names():
    model = zoo_layers.together((10,), ["Identity", "Dense wide"])
    assert {n: x.shape for n, x in model.output.items()} == {
        "Identity": (None, 10),
        "Dense_wide": (None, 40),
    }
