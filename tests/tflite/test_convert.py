import importlib.metadata
import os
import pathlib
import signal

import keras
import numpy as np
import pytest
from keras_distill.tflite import child as child_process
from sweeps import rest_is_long

from keras_distill import tflite

PROVEN = [
    ("android", "float32", 1e-5),
    ("android", "float16", 0.02),
    ("android", "dynamic", 0.2),
    ("android", "int8", 0.6),
    ("android", "int16x8", 0.2),
    ("micro", "float32", 1e-5),
    ("micro", "int8", 0.6),
    ("micro", "int16x8", 0.2),
]


@pytest.mark.parametrize(
    ("target", "quantization", "tolerance"), rest_is_long(PROVEN, [*PROVEN[1:4], *PROVEN[5:7]])
)
def test_file_answers_like_the_student(converted, split, target, quantization, tolerance):
    x, y = split[1]
    artifact = converted(target, quantization)
    report = artifact.verify(x, y)
    assert report["samples"] == len(x)
    assert report["student"]["accuracy"] > 0.9
    names = {"litert", "litert-reference"} | ({"micro"} if target == "micro" else set())
    assert set(report["runtimes"]) == names
    for runtime in report["runtimes"].values():
        assert runtime["outputs"][0]["name"] == "logits"
        assert runtime["outputs"][0]["mean"] < tolerance
        assert abs(runtime["accuracy"] - report["student"]["accuracy"]) < 0.0101


def test_predict_gives_the_differences_that_verify_reports(converted, student, split):
    x = split[1][0]
    artifact = converted("micro", "int8")
    report = artifact.verify(x)["runtimes"]["micro"]["outputs"][0]
    got, expected = artifact.predict(x), student.predict(x, verbose=0)
    assert got.dtype == "float32"
    assert got.shape == expected.shape
    step = artifact.report["outputs"][0]["scale"]
    assert report["largest"] == pytest.approx(np.abs(got - expected).max(), abs=1e-4)
    assert report["largest_steps"] == pytest.approx(np.abs(got - expected).max() / step, abs=1e-2)
    assert report["agreement"] == np.mean(got.argmax(-1) == expected.argmax(-1))


def test_int8_is_int8_from_end_to_end(converted):
    artifact = converted("micro", "int8")
    found = tflite.inspect(artifact.tflite)
    kinds = {t.dtype for op in found.operators for t in (*op.inputs, *op.outputs)}
    assert kinds == {"INT8", "INT32"}
    assert found.counts == {
        "CONV_2D": 2, "DEPTHWISE_CONV_2D": 1, "FULLY_CONNECTED": 1, "MAX_POOL_2D": 1, "MEAN": 1,
    }  # fmt: skip


def test_micro_interpreter_agrees_with_the_reference_kernels(converted, split):
    artifact = converted("micro", "int8")
    x = split[1][0]
    steps = np.abs(artifact.predict(x, "micro") - artifact.predict(x, "litert-reference"))
    steps /= artifact.report["outputs"][0]["scale"]
    assert np.round(steps).max() <= 1
    assert np.mean(steps > 0.5) < 0.01


def test_same_student_gives_the_same_bytes(student, split, converted):
    again = tflite.convert(student, "micro", "int8", calibration=split[0][0][:300])
    assert again.tflite == converted("micro", "int8").tflite


def test_save_then_load(converted, split, tmp_path):
    artifact = converted("micro", "int8")
    folder = artifact.save(tmp_path / "kit")
    loaded = tflite.load(folder / "student.tflite", target="micro")
    assert loaded.tflite == artifact.tflite
    x = split[1][0][:20]
    np.testing.assert_array_equal(loaded.predict(x), artifact.predict(x))


def test_target_of_a_file_is_that_of_its_report(converted, tmp_path):
    artifact = converted("micro", "int8")
    folder = artifact.save(tmp_path / "kit")
    assert tflite.load(folder / "student.tflite").target == "micro"
    assert tflite.load(folder / "student.tflite", "android").target == "android"
    assert tflite.load(artifact.tflite).target == "android"
    other = converted("micro", "float32").tflite
    (folder / "other.tflite").write_bytes(other)
    assert tflite.load(folder / "other.tflite").target == "android"
    for text in ("[]", "{", f'{{"bytes": {len(other)}}}'):
        (folder / "report.json").write_text(text)
        assert tflite.load(folder / "other.tflite").target == "android"


def test_kit_is_staged_inside_its_folder(converted, tmp_path, monkeypatch):
    """Which may be a mount point, or the only folder that can be written."""
    (tmp_path / "kit").mkdir()
    sources, replace = [], os.replace

    def recorded(source, target):
        sources.append(pathlib.Path(source))
        replace(source, target)

    monkeypatch.setattr(os, "replace", recorded)
    folder = converted("micro", "float32").save(tmp_path / "kit")
    assert {source.relative_to(folder).parts[0][0] for source in sources} == {"."}
    assert not [name for name in os.listdir(folder) if name.startswith(".")]
    assert os.listdir(tmp_path) == ["kit"]


class TestChild:
    """The child process that converters and first inferences run in."""

    @pytest.fixture
    def child(self, converted, tmp_path, monkeypatch):
        """One that nobody else uses, and a folder with a request for it."""
        (tmp_path / "file.tflite").write_bytes(converted("micro", "int8").tflite)
        child = child_process._Child()
        monkeypatch.setattr(child_process, "_CHILDREN", {"convert": child, "run": child})
        yield child, tmp_path
        child.stop()

    def test_that_died_idle_is_replaced(self, child):
        child, folder = child
        assert child_process.run(folder, "run", runtime="litert") == b""
        # Ctrl-C is sent to the whole group of the terminal's process.
        assert os.getpgid(child.process.pid) != os.getpgid(0)
        child.process.kill()
        child.process.wait()
        assert child_process.run(folder, "run", runtime="litert") == b""

    def test_last_words_are_those_of_the_request(self, child):
        child, folder = child
        assert child_process.run(folder, "run", runtime="litert") == b""
        before = child._bytes_printed()
        assert child._last_words(before) == "it printed nothing"
        os.write(child._printed.fileno(), b"I0000 00:00 started\nalmost there\n\nsomething broke\n")
        assert child._last_words(before) == "it last printed: almost there | something broke"
        assert child._last_words(child._bytes_printed()) == "it printed nothing"
        assert child_process.run(folder, "run", runtime="litert") == b""

    def test_dies_with_an_interrupted_request(self, child):
        """Its answer would else be taken for that to the next request."""
        child, folder = child

        def interrupt(*_):
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        try:
            with pytest.raises(KeyboardInterrupt):
                child_process.run(folder, "convert", quantization="float32")  # imports TensorFlow
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert child_process.run(folder, "run", runtime="litert") == b""


class TestBadInput:
    def test_student_is_not_a_model(self):
        with pytest.raises(TypeError, match=r"`student` must be a Keras model.*int"):
            tflite.convert(3)

    def test_unknown_quantization(self, student):
        with pytest.raises(ValueError, match=r"`quantization` must be.*Did you mean 'int8'"):
            tflite.convert(student, quantization="int-8")

    def test_unknown_target(self, student):
        with pytest.raises(ValueError, match=r"`target` must be one of .*Did you mean 'android'"):
            tflite.convert(student, target="andriod")

    def test_no_calibration(self, student):
        with pytest.raises(ValueError, match="`calibration` is needed"):
            tflite.convert(student, quantization="int8")

    def test_empty_calibration(self, student):
        with pytest.raises(ValueError, match="`calibration` has no samples"):
            tflite.convert(student, quantization="int8", calibration=np.zeros((0, 8, 8, 1)))
        with pytest.raises(ValueError, match="`calibration` has no samples"):
            tflite.convert(student, quantization="int8", calibration=iter(()))

    def test_calibration_of_another_shape(self, student):
        with pytest.raises(ValueError, match=r"'image' must have shape \(samples, 8, 8, 1\)"):
            tflite.convert(student, quantization="int8", calibration=np.zeros((5, 8, 8)))

    def test_unknown_io(self, student):
        with pytest.raises(ValueError, match="`io` must be one of"):
            tflite.convert(student, io="int4")

    @pytest.mark.parametrize("io", ["uint8", ("uint8", "float32")])
    @pytest.mark.parametrize(
        ("ranges", "precision"), [("mse", None), ("minmax", {"stem": "float32"})]
    )
    def test_bytes_beside_given_ranges(self, student, split, io, ranges, precision):
        calibration = tflite.Calibration(split[0][0][:20], ranges=ranges)
        with pytest.raises(ValueError, match='`io="uint8"` is not for files with `ranges` or'):
            tflite.convert(
                student, quantization="int8", io=io, calibration=calibration, precision=precision
            )

    @pytest.mark.parametrize("quantization", ["dynamic", "float16"])
    def test_what_micro_cannot_run(self, student, quantization):
        with pytest.raises(ValueError, match=f"'micro' can't run quantization='{quantization}'"):
            tflite.convert(student, "micro", quantization)

    def test_folder_that_cannot_be_written(self, converted, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(ValueError, match="`folder` can't be written"):
            converted("micro", "int8").save(tmp_path / "file" / "kit")
        assert os.listdir(tmp_path) == ["file"]

    @pytest.mark.parametrize(("conflict", "kind"), [("library", "file"), ("report.md", "folder")])
    def test_what_is_in_the_way_of_a_kit(self, converted, tmp_path, conflict, kind):
        if conflict == "library":
            (tmp_path / conflict).write_text("a file where a folder is needed")
        else:
            (tmp_path / conflict / "notes").mkdir(parents=True)
        with pytest.raises(ValueError, match=f"`folder` can't be written.*{conflict} is a {kind}"):
            converted("micro", "int8").save(tmp_path)
        assert os.listdir(tmp_path) == [conflict]

    def test_file_that_is_none(self, tmp_path):
        with pytest.raises(ValueError, match="Not a TFLite file"):
            tflite.inspect(b"not a model at all")
        with pytest.raises(ValueError, match="No such file"):
            tflite.load(tmp_path / "none.tflite")


def test_models_with_custom_layers(split):
    @keras.saving.register_keras_serializable("test")
    class Scale(keras.layers.Layer):
        def build(self, shape):
            self.factor = self.add_weight(shape=(shape[-1],), initializer="ones")

        def call(self, x):
            return x * self.factor

    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Flatten()(Scale()(inputs))
    model = keras.Model(inputs, keras.layers.Dense(10)(x))
    artifact = tflite.convert(model)
    x = split[1][0]
    np.testing.assert_allclose(artifact.predict(x), model.predict(x, verbose=0), atol=1e-5)


def test_versions_do_not_need_packages_of_these_names(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    student = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    assert tflite.convert(student).report["versions"]["keras"] == keras.__version__
