"""What an artifact proves: verification, layers, ranges, costs, inspection."""

import itertools
import json
import warnings

import keras
import numpy as np
import pytest
import zoo
from keras_distill.tflite import flatbuffer, runtimes, targets
from keras_distill.tflite.converters import activation_ranges

from keras_distill import tflite


def test_report_is_plain_json_and_prints(converted, split):
    artifact = converted("micro", "int8")
    artifact.verify(*split[1], count=30)
    report = json.loads(json.dumps(artifact.report))
    assert report == artifact.report
    text = str(artifact.report)
    assert "## verification" in text
    assert f"- bytes: {len(artifact.tflite):,}" in text


def test_verify_reads_datasets_and_generators(converted, split):
    import tensorflow as tf

    artifact = converted("android", "int8")
    x, y = split[1][0][:40], split[1][1][:40]
    wanted = artifact.verify(x, y)
    dataset = tf.data.Dataset.from_tensor_slices((x, y))
    assert artifact.verify(dataset.batch(16)) == wanted
    assert artifact.verify(dataset) == wanted
    assert artifact.verify(lambda: zip(x, y, strict=True)) == wanted
    assert artifact.verify({"image": x}, y) == wanted
    assert artifact.verify(x, keras.utils.to_categorical(y, 10)) == wanted
    assert artifact.verify(x, y, count=10)["samples"] == 10


def test_verify_without_a_student(converted, split):
    loaded = tflite.load(converted("android", "int8").tflite)
    with pytest.raises(ValueError, match="no Keras student to compare with"):
        loaded.verify(split[1][0])


def test_load_with_a_student_verifies(converted, student, split):
    file = converted("android", "int8").tflite
    loaded = tflite.load(file, student=student)
    assert loaded.verify(*split[1]) == converted("android", "int8").verify(*split[1])


def test_load_with_a_student_of_other_names_verifies(converted, student, split):
    """Files for microcontrollers have none: their inputs and outputs are known by their order."""
    made = converted("micro", "int8")
    loaded = tflite.load(made.tflite, "micro", student=student)
    outputs = loaded.verify(*split[1])["runtimes"]["micro"]["outputs"]
    assert [row.pop("name") for row in outputs] == ["output_0"]
    expected = made.verify(*split[1])["runtimes"]["micro"]["outputs"][0]
    assert outputs == [{key: expected[key] for key in expected if key != "name"}]
    model = zoo.several()
    file = tflite.convert(model, "micro").tflite
    report = tflite.load(file, "micro", student=model).verify(list(zoo.data(model).values()))
    assert [row["largest"] < 1e-5 for row in report["runtimes"]["micro"]["outputs"]] == [True] * 2
    with pytest.raises(ValueError, match="inputs of the file, .*input_1.* belongs to another"):
        tflite.load(file, "micro", student=student)


def test_micro_files_where_micro_is_not_installed(converted, split, monkeypatch):
    x, made = split[1][0][:50], converted("micro", "int8")
    expected = made.predict(x, "litert-reference")

    def missing():
        raise ImportError

    monkeypatch.setattr(runtimes, "_micro_runtime", missing)
    np.testing.assert_array_equal(made.predict(x), expected)
    assert "arena" not in tflite.load(made.tflite, "micro").report
    with pytest.raises(ImportError):
        made.predict(x, "micro")


def test_file_of_another_student_is_found_out(converted, student, split):
    other = keras.models.clone_model(student)
    loaded = tflite.load(converted("android", "float32").tflite, student=other)
    report = loaded.verify(*split[1])
    assert report["runtimes"]["litert"]["outputs"][0]["agreement"] < 0.5


class TestLayers:
    def test_rows_follow_the_operators(self, converted, split):
        rows = converted("android", "int8", io="int8").layers(split[1][0], count=10)
        operators = ["CONV_2D", "DEPTHWISE_CONV_2D", "MAX_POOL_2D", "CONV_2D", "MEAN"]
        assert [row["operator"] for row in rows] == [*operators, "FULLY_CONNECTED"]
        assert all(0 < row["error"] < 0.1 for row in rows)
        # The first operator's input has the error of the bytes that stand for the pixels.
        x = split[1][0][:10].astype("float64")
        step = converted("android", "int8", io="int8").report["inputs"][0]["scale"]
        given = np.sqrt(np.mean((np.round(x / step) * step - x) ** 2) / np.mean(x**2))
        assert rows[0]["error"] - rows[0]["added"] == pytest.approx(given, rel=1e-3)
        for before, row in itertools.pairwise(rows):
            assert row["added"] == pytest.approx(row["error"] - before["error"])

    def test_float_ports_are_known_by_their_values(self, converted, split):
        x = split[1][0]
        inner = converted("android", "int8", io="int8").layers(x, count=10)
        first, *rows, last = converted("android", "int8", io="float32").layers(x, count=10)
        assert (first["operator"], last["operator"]) == ("QUANTIZE", "DEQUANTIZE")
        assert [row["error"] for row in rows] == [row["error"] for row in inner]
        assert last["added"] == pytest.approx(0, abs=1e-6)

    def test_a_bad_layer_stands_out(self, student, split):
        """One channel of wide range and 4 bits: the error comes in where it was put."""
        artifact = tflite.convert(
            student, "android", "int8", calibration=split[0][0][:50], precision={"mixer": "int4"}
        )
        rows = artifact.layers(split[1][0], count=10)
        worst = max(rows, key=lambda row: row["added"])
        assert "mixer" in worst["layer"]

    @pytest.mark.parametrize("quantization", ["int8", "float16"])
    def test_a_single_sample_is_told(self, student, split, quantization, recwarn):
        """Where integers have their ranges from it."""
        tflite.convert(student, "android", quantization, calibration=split[0][0][:1])
        told = [str(x.message) for x in recwarn if "a single sample" in str(x.message)]
        assert len(told) == (quantization == "int8")

    def test_clipping_is_counted(self, student, split):
        with pytest.warns(UserWarning, match="meets calibration data"):
            artifact = tflite.convert(student, "android", "int8", calibration=split[0][0][:1] * 0.1)
        rows = artifact.layers(split[1][0], count=10)
        assert max(row["clipped"] for row in rows) > 0.2

    def test_without_a_float_file(self, converted, split):
        with pytest.raises(ValueError, match="no float32 file to compare"):
            converted("android", "float32").layers(split[1][0])


class TestRanges:
    def test_percentile_on_known_values(self, rng):
        x = np.append(rng.standard_normal(20000), 40.0)
        low, high = x.min(), x.max()
        histogram = np.histogram(x, bins=2048, range=(low, high))[0]
        cut = activation_ranges._percentile(histogram, low, high, 99.0)
        np.testing.assert_allclose(cut, np.percentile(x, [0.5, 99.5]), atol=0.05)

    @pytest.mark.parametrize(("times", "kept"), [(1, True), (100, False)])
    def test_least_error_is_that_of_all_ranges(self, rng, times, kept):
        """Held against pairs of ends, with each value rounded and clipped.

        One value far out is worth its range among 20,000 others, but not among 2,000,000.
        """
        x = np.append(rng.standard_normal(20000), 40.0)
        weights = np.append(np.full(20000, times), 1)
        low, high = x.min(), x.max()
        histogram = np.histogram(x, bins=2048, range=(low, high), weights=weights)[0]

        def error(low, high):
            step = (high - low) / 255
            rounded = np.round(np.clip(x, low, high) / step) * step
            return np.average((x - rounded) ** 2, weights=weights)

        parts = np.linspace(0.02, 1, 50)
        least = min(error(low * a, high * b) for a in parts for b in parts)
        found = activation_ranges._least_error(histogram, low, high, None)
        assert error(*found) < 1.02 * least
        assert (found[1] > 0.9 * high) == kept
        assert found[0] < 0.6 * low

    @pytest.mark.long
    @pytest.mark.filterwarnings("ignore:As int8, output 'logits' is off:UserWarning")
    def test_an_outlier_costs_less(self, student, split):
        x = split[0][0][:200].copy()
        x[0] *= 30
        scales = {}
        for method in ("minmax", "percentile", "mse"):
            given = tflite.Calibration(x, ranges=method)
            artifact = tflite.convert(student, "micro", "int8", calibration=given)
            scales[method] = artifact.report["outputs"][0]["scale"]
            if method == "percentile":
                accuracy = artifact.verify(*split[1])["runtimes"]["micro"]["accuracy"]
        assert scales["percentile"] < 0.7 * scales["minmax"]
        assert accuracy > 0.8
        assert 0.5 * scales["minmax"] < scales["mse"] < scales["minmax"]

    def test_data_unlike_training_warn(self, student, split):
        x = split[0][0][:100]
        with pytest.warns(UserWarning, match="standard deviations from that in training"):
            artifact = tflite.convert(student, "micro", "int8", calibration=x * 255)
        assert artifact.report["warnings"]
        given = tflite.Calibration(x, training_range=(-1, 0.5))
        with pytest.warns(UserWarning, match=r"span 0 to 1, the training data -1 to 0\.5"):
            tflite.convert(student, "micro", "int8", calibration=given)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            given = tflite.Calibration(x, training_range=(0, 1))
            tflite.convert(student, "micro", "int8", calibration=given)

    def test_few_samples_on_request(self, student, split):
        given = tflite.Calibration(split[0][0], samples=7)
        artifact = tflite.convert(student, "micro", "int8", calibration=given)
        assert artifact.report["calibration"] == {"samples": 7, "ranges": "minmax"}

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"samples": 0}, "`samples` must be an integer of at least 1"),
            ({"samples": 2.5}, "`samples` must be an integer of at least 1"),
            ({"ranges": "max"}, r"`ranges` must be one of \['minmax', 'percentile', 'mse'\]"),
            ({"percentile": 50}, "`percentile` must be above 50, at most 100"),
            ({"training_range": (1, 0)}, "`training_range` must be a pair .low, high."),
        ],
    )
    def test_calibration_is_checked_where_it_is_made(self, options, says):
        with pytest.raises(ValueError, match=says):
            tflite.Calibration(np.zeros((2, 8, 8, 1)), **options)


class TestPrecision:
    def test_4_bit_weights(self, converted, split):
        artifact = converted("android", "int4")
        weights = {
            op.name: op.inputs[1].dtype
            for op in tflite.inspect(artifact.tflite).operators
            if op.macs
        }
        assert weights == {
            "CONV_2D": "INT4", "DEPTHWISE_CONV_2D": "INT8", "FULLY_CONNECTED": "INT4",
        }  # fmt: skip
        int8 = converted("android", "int8")
        assert (
            artifact.report["bytes_by_part"]["weights"]
            < 0.65 * int8.report["bytes_by_part"]["weights"]
        )
        assert artifact.verify(*split[1])["runtimes"]["litert"]["accuracy"] > 0.7

    def test_by_layer_and_by_operator(self, student, split):
        artifact = tflite.convert(
            student, "android", "int8", calibration=split[0][0][:100],
            precision={"stem": "float32", "FULLY_CONNECTED": "int16"},
        )  # fmt: skip
        types = {op.layer: op for op in tflite.inspect(artifact.tflite).operators if op.macs}
        kinds = [(op.name, op.inputs[0].dtype, op.inputs[1].dtype) for op in types.values()]
        assert kinds == [
            ("CONV_2D", "FLOAT32", "FLOAT32"),
            ("DEPTHWISE_CONV_2D", "INT8", "INT8"),
            ("CONV_2D", "INT8", "INT8"),
            ("FULLY_CONNECTED", "INT16", "INT8"),
        ]
        assert artifact.verify(*split[1])["runtimes"]["litert"]["accuracy"] > 0.85

    @pytest.mark.long
    def test_layers_are_told_apart(self, rng):
        """The last one, too, and those whose name is another's scope, or like an operator's."""
        keras.backend.clear_session()
        layers = [keras.layers.Dense(32, "relu"), keras.layers.Dense(16), keras.layers.Dense(10)]
        model = keras.Sequential([keras.Input((20,)), *layers])
        layers[1].name = "FULLY_CONNECTED"
        assert [layer.name for layer in layers] == ["dense", "FULLY_CONNECTED", "dense_2"]
        model.layers[2].name = "dense_1"  # as is the scope of `dense`
        x = rng.random((50, 20), "float32")
        for i, layer in enumerate(layers):
            artifact = tflite.convert(
                model, quantization="int8", calibration=x, precision={layer.name: "float32"}
            )
            kernels = [op for op in tflite.inspect(artifact.tflite).operators if op.macs]
            types = ["INT8"] * 3
            types[i] = "FLOAT32"
            assert [op.inputs[1].dtype for op in kernels] == types
            assert artifact.report["warnings"] == []

    def test_ports_keep_their_type(self, student, split):
        for precision in ({"FULLY_CONNECTED": "float32"}, {"logits": "float32"}):
            artifact = tflite.convert(
                student, "micro", "int8", calibration=split[0][0][:20], precision=precision
            )
            found = tflite.inspect(artifact.tflite)
            assert [port.dtype for port in (*found.inputs, *found.outputs)] == ["INT8", "INT8"]
            (dense,) = (op for op in found.operators if op.name == "FULLY_CONNECTED")
            assert dense.inputs[1].dtype == "FLOAT32"

    @pytest.mark.parametrize(
        ("target", "precision", "error", "says"),
        [
            ("android", {"DEPTHWISE_CONV_2D": "int4"}, RuntimeError, "ai-edge-quantizer refused"),
            (
                "android", {"SOFTMAX": "float32"}, ValueError,
                r"names 'SOFTMAX', which has no .* are \['CONV_2D', ",
            ),
            ("micro", {"stemm": "int4"}, ValueError, r"names 'stemm'.*Did you mean 'stem'"),
        ],
    )  # fmt: skip
    def test_what_cannot_be_had_is_refused(self, student, split, target, precision, error, says):
        with pytest.raises(error, match=says):
            tflite.convert(
                student, target, "int8", calibration=split[0][0][:20], precision=precision
            )

    @pytest.mark.skipif(not runtimes.micro_available(), reason="no TFLite Micro interpreter")
    @pytest.mark.parametrize("key", ["logits", "FULLY_CONNECTED"])
    def test_dense_layers_of_4_bits_have_one_scale_in_tflite_micro(self, student, split, key):
        """With one for each output, older kernels compute wrongly, and newer ones refuse it."""
        (x, _), (x_test, y_test) = split
        options = {"quantization": "int8", "io": "int8", "calibration": x[:100]}
        options["precision"] = {key: "int4"}
        artifact = tflite.convert(student, "micro", **options)
        kernels = {o.name: o.inputs[1] for o in tflite.inspect(artifact.tflite).operators if o.macs}
        assert (kernels["FULLY_CONNECTED"].dtype, kernels["CONV_2D"].dtype) == ("INT4", "INT8")
        assert len(kernels["FULLY_CONNECTED"].scales) == 1
        found = {}
        for runtime in ("litert-reference", "micro"):
            opened = runtimes.open_file(artifact.tflite, runtime)
            (found[runtime],) = runtimes.run_samples(opened, [x_test[:50]])
        apart = np.abs(np.subtract(*found.values(), dtype="int64"))
        assert apart.max() <= 1
        assert np.mean(np.argmax(found["micro"], -1) == y_test[:50]) > 0.8
        per_output = tflite.convert(student, "android", **options)
        (reason,) = targets.refusals(tflite.inspect(per_output.tflite), "micro")
        assert "no FULLY_CONNECTED of 4-bit weights with a scale for each output" in reason
        assert "'logits'" in reason


class TestInsideTheFile:
    def test_raw_bytes_in_labels_out(self, student, split):
        """Pixels from 0 to 16, which calibration alone would scale to 256 steps."""
        (x, _), (x_test, y_test) = split
        raw = (x_test * 16).astype("uint8")
        for quantization in ("int8", "float16"):
            artifact = tflite.convert(
                student, "android", quantization, io="uint8",
                calibration=(x[:200] * 16).astype("uint8"),
                preprocessing=keras.layers.Rescaling(1 / 16), postprocessing="argmax",
            )  # fmt: skip
            port = artifact.report["inputs"][0]
            assert port["dtype"] == "uint8"
            assert (port["scale"], port["zero_point"]) in ((1.0, 0), (0.0, 0))
            got = artifact.predict(raw)
            assert got.dtype == "int32"
            assert np.mean(got == y_test) > 0.85
            assert artifact.verify(raw, y_test)["runtimes"]["litert"]["accuracy"] > 0.85

    def test_softmax(self, student, split):
        artifact = tflite.convert(
            student, "micro", "int8", calibration=split[0][0][:100], postprocessing="softmax"
        )
        port = artifact.report["outputs"][0]
        assert (port["scale"], port["zero_point"]) == (1 / 256, -128)
        np.testing.assert_allclose(artifact.predict(split[1][0]).sum(-1), 1, atol=0.03)

    def test_unknown(self, student):
        with pytest.raises(ValueError, match="`postprocessing` must be one of"):
            tflite.convert(student, postprocessing="sofmax")


class TestShapes:
    def test_dynamic_batch(self, student, split):
        artifact = tflite.convert(student, batch_size=None)
        assert artifact.report["inputs"][0]["shape"] == [None, 8, 8, 1]
        x = split[1][0][:30]
        np.testing.assert_allclose(artifact.predict(x), student.predict(x, verbose=0), atol=1e-5)
        with pytest.raises(ValueError, match="needs static shapes"):
            tflite.convert(student, "micro", batch_size=None)

    def test_static_batch_that_does_not_divide(self, student, split):
        artifact = tflite.convert(
            student, quantization="int8", calibration=split[0][0][:50], batch_size=4
        )
        x = split[1][0][:7]
        assert artifact.predict(x).shape == (7, 10)
        np.testing.assert_array_equal(artifact.predict(x)[5:], artifact.predict(x[5:]))

    @pytest.mark.long
    @pytest.mark.parametrize("target", [pytest.param("android", marks=pytest.mark.long), "micro"])
    def test_static_batch_is_saved_and_looked_into(self, student, split, tmp_path, target):
        x = split[0][0][:50]
        options = {"quantization": "int8", "calibration": x, "batch_size": 4}
        artifact = tflite.convert(student, target, **options)
        given, expected = artifact.example_values()
        assert expected["logits"].shape == (20, 10)
        got = artifact.predict(given["image"])
        np.testing.assert_allclose(got, expected["logits"], atol=1e-6)
        folder = artifact.save(tmp_path / "kit")
        if target == "android":
            path = folder / "app/app/src/main/assets/test_vectors.json"
            vectors = json.loads(path.read_text())
            assert vectors["count"] == 5
            rows = expected["logits"].reshape(5, 40)
            np.testing.assert_allclose(vectors["outputs"]["logits"], rows, atol=1e-6)
        rows = artifact.layers(x, count=8)
        alone = tflite.convert(student, target, "int8", calibration=x).layers(x, count=8)
        assert [row["error"] for row in rows] == pytest.approx([row["error"] for row in alone])
        assert len(artifact.layers(x, count=3)) == len(rows)
        with pytest.raises(ValueError, match="3 samples, fewer than the batch of 4"):
            tflite.convert(student, target, **{**options, "calibration": x[:3]})

    def test_dynamic_batch_of_steps(self):
        model = zoo.gru()
        x = zoo.data(model, 6)["window"]
        artifact = tflite.convert(model, recurrent="step", batch_size=None)
        expected = model.predict(x, verbose=0)
        np.testing.assert_allclose(artifact.predict(x), expected, atol=1e-5)
        assert artifact.verify(x)["runtimes"]["litert"]["outputs"][0]["largest"] < 1e-5

    def test_model_without_known_inputs(self):
        class Plain(keras.Model):
            def __init__(self):
                super().__init__()
                self.dense = keras.layers.Dense(3)

            def call(self, x):
                return self.dense(x)

        model = Plain()
        x = np.ones((2, 4), "float32")
        expected = model(x)
        with pytest.raises(ValueError, match="Give `input_signature`"):
            tflite.convert(model)
        signature = [keras.InputSpec(shape=(None, 4), dtype="float32")]
        artifact = tflite.convert(model, input_signature=signature)
        np.testing.assert_allclose(artifact.predict(x), expected, atol=1e-6)


class TestInspect:
    def test_counts_by_hand(self, converted):
        found = tflite.inspect(converted("android", "float32").tflite)
        stem, depthwise, mixer, dense = 64 * 16 * 9, 64 * 16 * 9, 4 * 24 * 9 * 16, 24 * 10
        assert [op.macs for op in found.operators if op.macs] == [stem, depthwise, mixer, dense]
        assert found.macs == stem + depthwise + mixer + dense
        # Normalization is folded: kernels and one bias per channel are left.
        weights = 9 * 16 + 16, 9 * 16 + 16, 9 * 16 * 24 + 24, 24 * 10 + 10
        assert found.parameters == sum(weights)
        assert (
            sum(found.bytes[p] for p in ("weights", "metadata", "structure"))
            == found.bytes["total"]
        )
        assert found.bytes["weights"] >= 4 * found.parameters
        assert found.signatures == {"serving_default": (["image"], ["logits"])}
        assert found.refusals["android"] == found.refusals["micro"] == []
        assert found.refusals["ethos-u55-128"] == ["the NPU computes in int8 and int16 only"]

    def test_loops_count_for_each_turn(self):
        """A GRU of 4 steps: 3 gates of 4 units, from 3 features and 4 units; then 4 outputs."""
        artifact = tflite.convert(zoo.gru(), "micro")
        assert artifact.report["operators"]["WHILE"] == 1
        assert artifact.report["multiply_accumulates"] == 4 * 12 * (3 + 4) + 16

    def test_loops_of_unknown_length(self):
        class UntilZero(keras.layers.Layer):
            def build(self, shape):
                self.kernel = self.add_weight(shape=(4, 4), initializer="zeros")

            def call(self, x):
                import tensorflow as tf

                kernel = tf.convert_to_tensor(self.kernel.value)
                return tf.while_loop(
                    lambda h: tf.reduce_sum(h) > 0, lambda h: (tf.matmul(h, kernel),), (x,)
                )[0]

        inputs = keras.Input((4,))
        found = tflite.inspect(tflite.convert(keras.Model(inputs, UntilZero()(inputs))).tflite)
        assert found.macs is None
        assert "parameters, unknown multiply-accumulates" in str(found)

    def test_what_targets_refuse(self, converted):
        found = tflite.inspect(converted("android", "float16").tflite)
        assert found.refusals["micro"] == ["TFLite Micro has no float16 DEQUANTIZE"]
        text = str(found)
        assert "micro: refused: TFLite Micro has no float16 DEQUANTIZE" in text
        assert "| CONV_2D | FLOAT32[1, 8, 8, 1] FLOAT32[16, 3, 3, 1] FLOAT32[16] |" in text
        with pytest.raises(ValueError, match="'micro' refuses the file: .*float16"):
            tflite.load(converted("android", "float16").tflite, "micro")

    def test_files_from_elsewhere(self, data_dir):
        path = data_dir / "mlperf_tiny" / "ic" / "pretrainedResnet_quant.tflite"
        found = tflite.inspect(path)
        # MLPerf Tiny's own count of its ResNet-8.
        assert found.macs == 12501632
        assert found.parameters == 77706
        assert found.inputs[0].dtype == "INT8"
        assert found.refusals == {"android": [], "micro": [], "ethos-u55-128": []}
        json.dumps(found.to_dict())
        artifact = tflite.load(path, "micro")
        x = np.zeros((1, 32, 32, 3))
        np.testing.assert_array_equal(artifact.predict(x), artifact.predict(x, "litert-reference"))


@pytest.mark.parametrize("damage", ["cut", "overwritten"])
def test_damaged_files(converted, rng, damage):
    file = converted("micro", "int8").tflite
    half = file[: len(file) // 2]
    damaged = half if damage == "cut" else half + rng.bytes(len(file) - len(half))
    for read in (tflite.inspect, tflite.load):
        with pytest.raises(ValueError, match="The TFLite file is damaged"):
            read(damaged)


@pytest.mark.long
def test_lstm_beside_another_keeps_its_own_scale(rng):
    """Concatenated outputs share a scale; the hidden state behind each must have it too."""
    inputs = keras.Input((6, 3))
    x = keras.layers.Bidirectional(keras.layers.LSTM(4))(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    x = rng.standard_normal((50, 6, 3)).astype("float32")
    artifact = tflite.convert(model, "micro", "int8", calibration=x)
    for op in tflite.inspect(artifact.tflite).operators:
        if op.name == "UNIDIRECTIONAL_SEQUENCE_LSTM":
            assert op.inputs[flatbuffer.HIDDEN_STATE].scales == op.outputs[0].scales
    expected = model.predict(x, verbose=0)
    assert np.abs(artifact.predict(x) - expected).max() < 0.1 * np.abs(expected).max()
