"""What is wrong with a file is found when it is made, and `verify` says which runtime is off."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras_distill.tflite import closeness, runtimes

from keras_distill import quantization, tflite

layers = keras.layers


def data(*shape):
    return np.random.default_rng(0).standard_normal((64, *shape)).astype("float32")


def model_of(function, *shape, dtype="float32"):
    keras.utils.set_random_seed(0)
    x = keras.Input(shape, dtype=dtype, name="x")
    return keras.Model(x, function(x), name="student")


class TestErrors:
    def test_of_known_values(self):
        expected = np.float32([[0, 2], [4, 6]])
        assert closeness.relative_error(expected, expected + 1) == pytest.approx(1 / 5**0.5)
        # The rounding of the output itself isn't counted: a step has the variance of 1/12.
        wide = 10 * expected
        assert closeness.relative_error(wide, wide + 1, 12**0.5) < 1e-6
        assert closeness.relative_error(np.ones(4), np.ones(4)) == 0

    def test_nan_on_both_sides_is_agreement(self):
        nan = np.float32([np.nan, 1, 2, np.inf])
        assert closeness.relative_error(nan, nan.copy()) == 0
        assert closeness.relative_error(nan, np.float32([0, 1, 2, np.inf])) == np.inf
        assert closeness.relative_error(np.float32([0, 1, 2, np.inf]), nan) == np.inf
        assert closeness.relative_error(nan, np.float32([np.nan, 1, 2, -np.inf])) == np.inf


class TestDecisions:
    """Outputs of integers and booleans are judged, too."""

    def test_errors_of_known_values(self):
        classes = np.int32([0, 1, 2, 3, 0, 1, 2, 3])
        assert closeness.share_differing(classes, np.where(classes == 3, 0, classes)) == 0.25
        assert closeness.share_differing(classes > 1, classes > 2) == 0.25
        # Numbers that were rounded: all are off, by little.
        numbers = np.arange(1000)
        assert closeness.share_differing(numbers, numbers + 1) == pytest.approx(1 / numbers.std())

    @pytest.mark.parametrize("kind", ["argmax", "comparison"])
    def test_that_rounding_changes(self, kind):
        x = data(8)
        student = model_of(lambda x: 5 + 1e-3 * layers.Dense(5)(x), 8)
        if kind == "comparison":
            student = keras.Model(student.inputs, student.outputs[0] > 5)
        options = {"postprocessing": kind} if kind == "argmax" else {}
        with pytest.warns(UserWarning, match=r"off: [\d.]+% of its values are not .*limit: 10%"):
            artifact = tflite.convert(student, quantization="int8", calibration=x, **options)
        report = artifact.verify(x)
        assert report["verdict"] == "fail"
        [row] = report["runtimes"]["litert"]["outputs"]
        assert row["error"] <= 1 - row["agreement"]

    def test_that_hold(self):
        x = data(8)
        student = model_of(lambda x: layers.Dense(5)(x), 8)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            artifact = tflite.convert(
                student, quantization="int8", calibration=x, postprocessing="argmax"
            )
        y = student.predict(x, verbose=0).argmax(-1)
        report = artifact.verify(x, y)
        assert report["verdict"] == "pass"
        assert report["student"] == {"accuracy": 1.0}


class TestLabels:
    """What `verify` compares the first output with."""

    @pytest.fixture(scope="class")
    def artifact(self):
        def function(x):
            return [layers.Dense(3, name="zebra")(x), layers.Dense(2, name="ape")(x)]

        return tflite.convert(model_of(function, 6))

    def test_of_several_outputs(self, artifact):
        x = data(6)
        y = artifact.student.model.predict(x, verbose=0)[0].argmax(-1)
        other = np.zeros(64, int)
        for given in (y, list(y), [y, other], {"zebra": y, "ape": other}, np.eye(3, dtype=int)[y]):
            report = artifact.verify(x, given)
            assert report["student"] == {"accuracy": 1.0}
            assert report["runtimes"]["litert"]["accuracy"] == 1.0
        dataset = tf.data.Dataset.from_tensor_slices((x, {"zebra": y, "ape": other})).batch(8)
        assert artifact.verify(dataset)["student"] == {"accuracy": 1.0}
        assert artifact.verify(x, y, count=10)["samples"] == 10

    @pytest.mark.parametrize("y", [np.zeros(3, int), np.zeros((64, 5)), {"ape": np.zeros(64, int)}])
    def test_that_do_not_fit(self, artifact, y):
        with pytest.raises(ValueError, match=r"`y` must have .*'zebra'.*Received"):
            artifact.verify(data(6), y)


class TestWideSteps:
    """Rounding counts where an output varies too little for the step that it is rounded to."""

    def test_errors_of_known_values(self):
        kelvin = 293 + np.float64([[-1], [0], [1], [0]])
        got = np.round(kelvin / 2) * 2
        wanted = np.sqrt(np.mean((got - kelvin) ** 2)) / kelvin.std()
        assert closeness.relative_error(kelvin, got, 2.0) == pytest.approx(wanted)
        reason = "its values are rounded to steps of 2, wide against a spread of 0.707"
        assert closeness.wide_step(kelvin, 2.0) == reason
        assert closeness.wide_step(kelvin, 0.1) == ""

    def test_of_one_unit_of_several_quantities(self):
        both = np.stack([kelvin := 293 + np.sin(np.arange(50.0)), np.linspace(900, 1100, 50)], -1)
        got = np.round(both / 4) * 4
        wanted = np.sqrt(np.mean((got[:, 0] - kelvin) ** 2)) / kelvin.std()
        assert closeness.relative_error(both, got, 4.0) == pytest.approx(wanted)
        assert "of unit 0 of" in closeness.wide_step(both, 4.0)

    @pytest.mark.parametrize(
        "sure",
        [
            np.full((20, 3), 5.0),
            5 + 1e-7 * data(3),
            np.zeros((20, 1)),
            # Probabilities that rounding leaves their decisions.
            np.eye(5)[np.arange(20) % 5] * 0.9996 + 1e-4 * (1 - np.eye(5)[np.arange(20) % 5]),
            np.tile([0.9996, 2e-4, 2e-4], (20, 1)) + np.linspace(0, 1e-5, 60).reshape(20, 3),
            np.linspace(1e-6, 4e-4, 20)[:, None],
        ],
    )  # fmt: skip
    def test_constants_and_decisions_are_no_reason(self, sure):
        got = np.round(sure * 256) / 256
        assert closeness.wide_step(sure, 1 / 256) == ""
        assert closeness.relative_error(sure, got, 1 / 256) == 0

    def test_logits_of_classes_are_one_quantity(self):
        """A class of small spread is no reason, where decisions outlive rounding."""
        logits = 5 * data(4).astype("float64")
        logits[:, 2] = 0.1 * logits[:, 2]
        step = 4 * np.abs(logits).max() / 255
        got = np.round(logits / step) * step
        assert 0.1 < step / 12**0.5 / logits[:, 2].std() < 0.2
        assert closeness.wide_step(logits, step) == ""
        assert closeness.relative_error(logits, got, step) < 0.01
        # Unless rounding leaves a few values of it, as of an angle beside meters.
        logits[:, 2] = 0.02 * data(4)[:, 2]
        assert "of unit 2 of" in closeness.wide_step(logits, step)

    @pytest.mark.parametrize("steps", [0.2, 1.5, 2.5])
    def test_units_of_a_regression_are_several_quantities(self, steps):
        """Though now this one and now that one is the larger."""
        rng = np.random.default_rng(0)
        step = 1000 / 255
        both = np.stack([rng.normal(293, steps * step, 64), rng.uniform(-100, 900, 64)], -1)
        assert len(np.unique(both.argmax(-1))) == 2
        assert "of unit 0 of" in closeness.wide_step(both, step)

    def test_probabilities_of_which_rounding_changes_decisions(self):
        """All about 1/10, of an untrained classifier: rounding makes ties of them."""
        logits = 0.05 * np.random.default_rng(0).standard_normal((200, 10))
        weak = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        agreement = np.mean(np.round(256 * weak).argmax(-1) == weak.argmax(-1))
        assert agreement < 0.95
        assert "wide against a spread" in closeness.wide_step(weak, 1 / 256)

    def test_advice_names_the_layer_of_the_output_that_is_wide(self):
        x = data(8)

        def function(x):
            hidden = layers.Dense(8, "relu")(x)
            kelvin = layers.Dense(1, name="kelvin")(hidden)
            return {"scores": layers.Dense(3, name="classes")(hidden), "warmth": kelvin}

        student = model_of(function, 8)
        student.get_layer("kelvin").bias.assign([293.0])
        with pytest.warns(UserWarning, match="output 'warmth' is off") as found:
            tflite.convert(student, "micro", "int8", calibration=x)
        [text] = {str(w.message) for w in found if "wide against" in str(w.message)}
        assert "precision={'kelvin': 'float32'}" in text

    @pytest.mark.parametrize("kind", ["subclassed", "operation"])
    def test_advice_without_a_layer_that_makes_the_output(self, kind):
        x = data(8)

        class Subclassed(keras.Model):
            def __init__(self):
                super().__init__()
                self.dense = layers.Dense(1)

            def call(self, x):
                return 293.0 + self.dense(x)

        student = Subclassed() if kind == "subclassed" else model_of(
            lambda x: 293.0 + layers.Dense(1)(x), 8)  # fmt: skip
        student(x)
        signature = [keras.InputSpec(shape=(None, 8), dtype="float32")]
        with pytest.warns(UserWarning, match="wide against a spread") as found:
            tflite.convert(student, "micro", "int8", calibration=x, input_signature=signature)
        text = next(str(w.message) for w in found if "wide against" in str(w.message))
        assert "precision" not in text
        assert 'take quantization="int16x8"' in text

    def test_of_a_regression_far_from_zero(self):
        """A float last layer, as the warning advises, is right."""
        x = data(8)
        student = model_of(lambda x: layers.Dense(1, name="kelvin")(layers.Dense(8, "relu")(x)), 8)
        student.layers[-1].bias.assign([293.0])
        with pytest.warns(UserWarning, match="'kelvin' is off: .*wide against a spread") as found:
            artifact = tflite.convert(student, "micro", "int8", calibration=x)
        [text] = {str(w.message) for w in found if "wide against" in str(w.message)}
        assert "standardize the target in training" in text
        assert "precision={'kelvin': 'float32'}, io=('int8', 'float32')" in text
        assert any("wide against" in note for note in artifact.report["warnings"])
        report = artifact.verify(x)
        assert report["verdict"] == "fail"
        assert "wide against a spread" in report["runtimes"]["micro"]["reason"]
        options = {"precision": {"kelvin": "float32"}, "io": ("int8", "float32")}
        right = tflite.convert(student, "micro", "int8", calibration=x, **options)
        expected = student.predict(x)
        assert np.sqrt(np.mean((right.predict(x) - expected) ** 2)) < 0.05 * expected.std()
        assert right.verify(x)["verdict"] == "pass"

    def test_of_a_softmax_over_many_classes(self):
        x = data(8)
        student = model_of(lambda x: layers.Dense(400, "softmax")(x / 4), 8)
        with pytest.warns(UserWarning, match="end the student in logits"):
            artifact = tflite.convert(student, "micro", "int8", calibration=x)
        report = artifact.verify(x)
        assert report["verdict"] == "fail"
        assert report["runtimes"]["micro"]["outputs"][0]["agreement"] < 0.1


class TestConversion:
    def test_weights_that_are_nan(self):
        student = model_of(lambda x: layers.Dense(3, name="scores")(x), 6)
        kernel = student.layers[-1].kernel
        kernel.assign(np.where(np.arange(18).reshape(6, 3) < 2, np.nan, 0.0))
        message = r"'scores/kernel'.*'student' holds NaN or infinity \(2 of 18 values\)"
        for options in ({}, {"quantization": "int8", "calibration": data(6)}):
            with pytest.raises(ValueError, match=message):
                tflite.convert(student, **options)

    def test_a_file_that_fails_on_zeros_is_refused_by_name(self):
        """LiteRT's int8 DIV refuses to divide by 0."""
        student = model_of(lambda x: x / keras.ops.sum(keras.ops.abs(x), -1, keepdims=True), 6)
        fix = r"DIV.*failed to invoke.* Keep divisors away from 0, as in `total / ops.maximum"
        with pytest.raises(ValueError, match=fix):
            tflite.convert(student, quantization="int8", calibration=data(6))
        with pytest.warns(UserWarning, match="student's output 'output' is NaN.*integers have no"):
            artifact = tflite.convert(student, "micro", "int8", calibration=data(6))
        assert any("integers have no NaN" in note for note in artifact.report["warnings"])

    def test_a_student_that_is_nan_on_padding_is_warned_of(self):
        def masked_mean(x):
            x = layers.Embedding(20, 6, mask_zero=True)(x)
            return layers.Dense(4)(layers.GlobalAveragePooling1D()(x))

        student = model_of(masked_mean, 7, dtype="int32")
        ids = np.random.default_rng(0).integers(1, 20, (32, 7)).astype("int32")
        for calibration in (None, ids):
            with pytest.warns(UserWarning, match="NaN or infinite where all inputs are 0"):
                artifact = tflite.convert(student, calibration=calibration)
            assert any("all inputs are 0" in note for note in artifact.report["warnings"])
        ids[0] = 0
        np.testing.assert_allclose(artifact.predict(ids), student.predict(ids), atol=1e-5)
        report = artifact.verify(ids)
        assert report["verdict"] == "pass"
        assert report["runtimes"]["litert"]["outputs"][0]["largest"] < 1e-5

    def test_a_file_that_is_off_is_warned_of(self):
        """Far from what it was calibrated for: judged there, by what is asked of it."""
        x = data(6)
        x[1] *= 400
        student = model_of(lambda x: layers.Dense(3)(layers.Dense(8, "tanh")(x)), 6)
        with pytest.warns(UserWarning, match=r"'output' is off: .* of the spread.*limit: 10%"):
            tflite.convert(student, quantization="int8", calibration=x)

    def test_bytes_that_tflite_micro_does_not_cast(self):
        def function(x):
            return layers.Dense(3)(layers.Flatten()(layers.Rescaling(1 / 255)(x)))

        x = np.random.default_rng(0).integers(0, 256, (32, 4, 4, 1)).astype("uint8")
        with (
            pytest.warns(UserWarning, match="stayed float: CAST"),
            pytest.raises(ValueError, match=r'UINT8.*Build the student with a float input.*io="ui'),
        ):
            tflite.convert(model_of(function, 4, 4, 1, dtype="uint8"), "micro", "int8",
                           calibration=x)  # fmt: skip
        student = model_of(function, 4, 4, 1)
        right = tflite.convert(student, "micro", "int8", calibration=x, io="uint8")
        assert right.verify(x)["verdict"] == "pass"
        assert right.report["inputs"][0]["scale"] == 1.0

    def test_ids_of_64_bits_that_tflite_micro_does_not_cast(self):
        def function(ids):
            return layers.Dense(3)(layers.Flatten()(layers.Embedding(9, 2)(ids)))

        ids = np.random.default_rng(0).integers(0, 9, (32, 4))
        with pytest.raises(ValueError, match=r"INT64.*an input of int32.*dtype=.int32"):
            tflite.convert(model_of(function, 4, dtype="int64"), "micro", "int8", calibration=ids)

    def test_calibration_that_is_zero_everywhere(self):
        """The file's input would hold a millionth at most."""
        student = model_of(lambda x: layers.Dense(3)(x), 6)
        with pytest.warns(UserWarning, match="input 'x' are 0 everywhere.*Calibrate with inputs"):
            artifact = tflite.convert(student, quantization="int8", calibration=0 * data(6))
        assert "0 everywhere" in artifact.report["warnings"][0]

    def test_aware_students_are_judged_on_their_trained_range(self):
        x = (np.random.default_rng(0).random((64, 8, 8, 1)) * 80 - 60).astype("float32")

        def function(x):
            x = layers.Conv2D(4, 3, activation="relu")(layers.Rescaling(1 / 80, 0.2)(x))
            return layers.Dense(3)(layers.Flatten()(x))

        aware = quantization.quantize_aware(model_of(function, 8, 8, 1), x)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            tflite.convert(aware, "micro")


class TestVerdicts:
    def test_of_a_known_fault(self):
        """LiteRT's reference kernel of int8 SUM saturates."""
        x = np.abs(data(5, 6))
        student = model_of(lambda x: layers.Dense(3)(keras.ops.sum(x, axis=1)), 5, 6)
        report = tflite.convert(student, quantization="int8", calibration=x).verify(x)
        assert report["verdict"] == report["runtimes"]["litert"]["verdict"] == "pass"
        assert report["limit"] == 0.1
        reference = report["runtimes"]["litert-reference"]
        assert reference["verdict"] == "not judged"
        assert "SUM" in reference["reason"]
        assert reference["outputs"][0]["error"] > 0.3

    def test_where_tflite_micro_is_not_installed(self, monkeypatch):
        """Its stand-in with the fault doesn't judge."""
        monkeypatch.setattr(runtimes, "micro_available", lambda: False)
        x = np.abs(data(5, 6))
        student = model_of(lambda x: layers.Dense(3)(keras.ops.sum(x, axis=1)), 5, 6)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            artifact = tflite.convert(student, "micro", "int8", calibration=x)
        assert artifact.verify(x)["verdict"] == "pass"
        expected = student.predict(x)
        assert np.sqrt(np.mean((artifact.predict(x) - expected) ** 2)) < 0.05 * expected.std()

    def test_of_operators_that_the_reference_lacks(self, tmp_path):
        x = data(6)
        student = model_of(lambda x: layers.Dense(3)(layers.Dense(8, activation="elu")(x)), 6)
        artifact = tflite.convert(student, calibration=x)
        report = artifact.verify(x)
        assert report["verdict"] == "pass"
        assert report["runtimes"]["litert-reference"]["verdict"] == "not run"
        assert "ELU" in report["runtimes"]["litert-reference"]["reason"]
        artifact.save(tmp_path)
        assert "not run" in (tmp_path / "report.md").read_text()
        with pytest.warns(UserWarning, match="stayed float: ELU"):
            quantized = tflite.convert(student, quantization="int8", calibration=x)
        assert max(row["error"] for row in quantized.layers(x)) < 0.05

    def test_of_the_file_of_another_student(self):
        x = data(6)
        student = model_of(lambda x: layers.Dense(3)(x), 6)
        other = keras.models.clone_model(student)
        report = tflite.load(tflite.convert(student).tflite, student=other).verify(x)
        assert report["verdict"] == "fail"
        assert report["runtimes"]["litert"]["reason"] == "off by more than 1%: output"


class TestVectors:
    """The inputs that a kit stores are real, or it says that they aren't."""

    @pytest.fixture
    def x(self):
        return (np.random.default_rng(0).random((64, 8, 8, 1)) * 80 - 60).astype("float32")

    @pytest.fixture
    def student(self):
        def function(x):
            x = layers.Conv2D(4, 3, activation="relu")(layers.Rescaling(1 / 80, 0.2)(x))
            return layers.Dense(3)(layers.Flatten()(x))

        return model_of(function, 8, 8, 1)

    def test_of_an_aware_student_span_the_trained_range(self, student, x):
        artifact = tflite.convert(quantization.quantize_aware(student, x), "micro")
        [given], _ = artifact.test_vectors()
        assert np.min(given) < -110
        assert np.max(given) > 110
        assert artifact.examples.source == "made up within the trained range"

    @pytest.mark.parametrize("options", [{}, {"quantization": "float16"}])
    def test_without_data_are_not_called_so(self, student, x, tmp_path, options):
        artifact = tflite.convert(student, **options)
        assert artifact.examples.source == "made up"
        artifact.verify(x)
        given, expected = artifact.example_values()
        assert {tuple(a.ravel()) for a in given["x"]} <= {tuple(a.ravel()) for a in x}
        np.testing.assert_allclose(expected["output"], student.predict(given["x"]), atol=0.01)
        assert artifact.examples.source == "samples given to `verify`"

    def test_in_the_kit(self, student, x, tmp_path):
        artifact = tflite.convert(student, "micro")
        program = (artifact.save(tmp_path / "made_up") / "main.cc").read_text()
        assert '"RAN" : "FAIL"' in program
        assert "made-up inputs, which prove only that the file runs" in program
        artifact.verify(x)
        folder = artifact.save(tmp_path / "verified")
        program = (folder / "main.cc").read_text()
        assert '"PASS" : "FAIL"' in program
        assert "test vectors" in program
        header = (folder / "student_test_vectors.h").read_text()
        assert "Where the inputs come from: samples given to `verify`." in header

    def test_from_calibration(self, student, x):
        artifact = tflite.convert(student, "micro", "int8", calibration=x)
        given, _ = artifact.example_values()
        step = artifact.report["inputs"][0]["scale"]
        np.testing.assert_allclose(given["x"], x[:5], atol=step / 2 + 1e-6)
