import base64
import io
import json
import re
import warnings
import xml.etree.ElementTree as ET

import keras
import numpy as np
import pytest
from matplotlib import image
from sweeps import rest_is_long

from keras_distill.evaluation import compare, gains, pictures


@pytest.fixture(scope="module")
def written(comparison, candidates, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    return comparison.report(
        folder,
        title="Digits <8 × 8>",
        histories={
            "teacher": candidates["teacher"].history,
            "student on labels": {"loss": [2.0, 1.0], "val_loss": [2.1, 1.2]},
        },
        settings={"temperature": 4.0, "seed": 0},
    )


def test_the_html_needs_nothing_else(written, comparison):
    html = (written / "report.html").read_text()
    sources = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert all(source.startswith("data:image/") for source in sources)
    assert "http" not in re.sub(r'src="[^"]*"', "", html)
    # Bytes and latency; loss and accuracy; a matrix and a reliability diagram for each of 5
    # candidates; 12 inputs for each of the 4 that aren't the teacher.
    assert len(sources) == 2 + 2 + 5 + 5 + 4 * 12
    for source in sources:
        kind, content = re.match(r"data:image/(.*);base64,(.*)", source).groups()
        content = base64.b64decode(content)
        if kind == "png":
            assert content.startswith(b"\x89PNG")
        else:
            assert ET.fromstring(content).tag.endswith("svg")


def test_the_html_shows_the_table(written, comparison):
    html = (written / "report.html").read_text()
    assert "<title>Digits &lt;8 × 8&gt;</title>" in html
    for row in comparison.rows:
        assert f"<td>{row['parameters']:,}</td>" in html
        assert f"{100 * row['accuracy']:.2f} %" in html
    worst = comparison.disagreements["distilled"][0]
    assert f"sample {worst['sample']} ·" in html
    assert "temperature" in html
    assert "tensorflow" in html


def test_markdown_and_json(written, comparison):
    markdown = (written / "report.md").read_text()
    assert comparison.markdown() in markdown
    worst = comparison.disagreements["distilled"][0]
    assert f"| {worst['sample']} | {worst['label']} |" in markdown
    stored = json.loads((written / "report.json").read_text())
    assert stored["settings"] == {"temperature": 4.0, "seed": 0}
    assert stored["candidates"][2]["accuracy"] == comparison.rows[2]["accuracy"]
    assert stored["histories"]["student on labels"]["loss"] == [2.0, 1.0]
    assert "keras" in stored["versions"]


def test_a_folder_in_the_way_is_refused(comparison, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="can't be written"):
        comparison.report(tmp_path / "file")


def test_text_and_values_are_shown(tmp_path, candidates, held_out):
    x, y = held_out
    result = compare(
        {"teacher": candidates["teacher"], "<b>": candidates["distilled"]}, (x[:40], y[:40])
    )
    html = result.report(tmp_path, show=lambda x: f"sum {x.sum():.3f} <i>").joinpath("report.html")
    worst = result.disagreements["<b>"][0]
    assert f"sum {worst['input'].sum():.3f} &lt;i&gt;" in html.read_text()
    assert "<b>" not in html.read_text()


def test_pareto_front():
    points = [(1, 0.5), (2, 0.7), (2, 0.6), (3, 0.7), (4, 0.9), (5, 0.8)]
    assert pictures.pareto_front(points) == [(1, 0.5), (2, 0.7), (4, 0.9)]
    # No point on the front is beaten, and each point off it is.
    for cost, score in points:
        beaten = any(
            c <= cost and s >= score and (c, s) != (cost, score) for c, s in points
        )  # fmt: skip
        assert beaten == ((cost, score) not in pictures.pareto_front(points))


@pytest.mark.parametrize(
    ("x", "kind"),
    [
        (np.zeros((8, 8, 1)), "picture"),
        (np.zeros((8, 9, 3), "uint8"), "picture"),
        (np.full((28, 28), -3.0), "picture"),
        (np.zeros((128, 6)), "picture"),
        (np.zeros(200), "picture"),
        (np.arange(5), "text"),
        (np.array("some news"), "text"),
        (b"some news", "text"),
        (np.zeros((4, 4, 4, 4)), "text"),
    ],
)
def test_inputs_are_shown_as_what_they_are(x, kind):
    assert list(pictures.shown(x)[0]) == [kind]


def test_several_inputs_are_shown_one_by_one():
    parts = pictures.shown({"image": np.zeros((8, 8, 1)), "words": np.array("news")})
    assert [list(part) for part in parts] == [["picture"], ["text"]]


def test_an_image_keeps_its_values():
    x = np.arange(64).reshape(8, 8) / 63
    uri = pictures.image(x)
    stored = image.imread(io.BytesIO(base64.b64decode(uri.split(",")[1])))
    np.testing.assert_allclose(stored[..., 0], x, atol=1 / 255)


@pytest.mark.long
def test_curves_have_the_colors_of_their_candidates(comparison, tmp_path, monkeypatch):
    drawn = []
    curve = pictures._curve

    def recorded(axes, values, line, color):
        drawn.append((list(values), line, color))
        return curve(axes, values, line, color)

    monkeypatch.setattr(pictures, "_curve", recorded)
    histories = {
        "distilled": [{"loss": [3.0, 1.0], "val_loss": [3.0, 2.0]}, {"loss": [4.0, 2.0]}],
        "another run": {"loss": [5.0]},
        "and another": {"loss": [6.0]},
    }
    comparison.report(tmp_path, histories=histories)
    stored = json.loads((tmp_path / "report.json").read_text())["histories"]
    assert stored == histories
    names = [row["name"] for row in comparison.rows]
    own = pictures.colors(names, "teacher")["distilled"]
    assert drawn[:3] == [
        ([3.0, 1.0], "--", own), ([3.0, 2.0], "-", own), ([4.0, 2.0], "--", own)
    ]  # fmt: skip
    others = {color for _, _, color in drawn[3:]}
    assert len(others) == 2
    assert not others & set(pictures.colors(names, "teacher").values())
    with pytest.raises(TypeError, match="`histories` must be .* Received for 'x': float"):
        comparison.report(tmp_path, histories={"x": [1.0]})
    with pytest.raises(TypeError, match="`histories` must be .* Received for 'x': .*'epochs': 1"):
        comparison.report(tmp_path, histories={"x": {"epochs": 1}})


@pytest.mark.long
@pytest.mark.parametrize(
    "task",
    rest_is_long(
        ["perfect", "one class", "segmentation", "constant", "values"], ["one class", "constant"]
    ),
)
def test_reports_raise_no_warnings(task, rng, tmp_path):
    """Neither NumPy's, such as "divide by zero encountered", nor matplotlib's."""
    x = rng.normal(size=(60, 4, 4, 1)).astype("float32")
    y = (x.mean((1, 2, 3)) > 0).astype(int)
    layers = [keras.layers.Flatten(), keras.layers.Dense(2)]
    if task == "perfect":
        layers = [keras.layers.Lambda(lambda x: 1000 * keras.ops.mean(x, (1, 2)) * [[-1.0, 1.0]])]
    elif task == "one class":
        y = np.zeros(60, int)
    elif task == "segmentation":
        layers, y = [keras.layers.Conv2D(3, 1)], (x[..., 0] > 9).astype(int)
    else:
        layers[-1] = keras.layers.Dense(1)
        y = np.ones(60, "float32") if task == "constant" else x.sum((1, 2, 3))
    models = {
        name: keras.Sequential([keras.Input((4, 4, 1)), *layers])
        for name in ("teacher", "student on labels", "distilled")
    }
    with warnings.catch_warnings(), np.errstate(all="raise", under="ignore"):
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        result = compare(models, (x, y), latency_runs=2 * (task == "perfect"))
        history = {"loss": [1.0], "val_loss": [float("nan")]}
        result.report(tmp_path, histories={"distilled": [history, history]})
        str(result)


def test_a_draw_without_a_gap_has_no_share():
    """The gap is sure, but now and then a test set is drawn on which there is none."""
    rows = [{"name": n, "accuracy": a} for n, a in (("t", 0.9), ("b", 0.7), ("s", 0.8))]
    draws = {row["name"]: {"accuracy": np.full(100, row["accuracy"])} for row in rows}
    draws["t"]["accuracy"][0] = draws["b"]["accuracy"][0]
    with np.errstate(all="raise"):
        assert gains.add_recovered_gap(rows, draws, "accuracy", "t", "b") == []
    assert rows[2]["gap_recovered"] == pytest.approx(0.5)
    shares = draws["s"]["gap_recovered"]
    assert np.isnan(shares[0])
    np.testing.assert_allclose(shares[1:], 0.5)
