"""The examples of an own loop, of several workers, and of the first twenty lines."""

import pathlib
import re
import runpy

import keras
import pytest

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def _examples(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.chdir(tmp_path)


@pytest.mark.long
def test_custom_loop(capsys):
    import custom_loop

    accuracy = custom_loop.main(epochs=4)
    assert list(accuracy) == ["teacher", "student on labels", "student distilled"]
    assert min(accuracy.values()) > 0.8
    epochs = re.findall(r"epoch \d: .*'loss': ([\d.]+)", capsys.readouterr().out)
    assert len(epochs) == 4
    assert float(epochs[-1]) < float(epochs[0])


@pytest.mark.nightly
def test_multi_worker():
    import multi_worker

    result = multi_worker.main()
    assert result.pop("workers") == 2
    assert min(result.values()) > 0.7


@pytest.mark.long
def test_quickstart(tmp_path, monkeypatch):
    fit = keras.Model.fit

    def fit_briefly(*args, epochs, **kwargs):
        return fit(*args, epochs=epochs // 10, **kwargs)

    monkeypatch.setattr(keras.Model, "fit", fit_briefly)
    runpy.run_path(str(EXAMPLES / "quickstart.py"))
    folder = tmp_path / "runs" / "quickstart"
    assert {"student.tflite", "report.json"} <= {path.name for path in folder.iterdir()}
