"""A stream gives, frame by frame, what the student gives on windows."""

import functools
import itertools

import keras
import numpy as np
import pytest
import streamed_students
from keras_distill.tflite import budget, runtimes, streaming
from keras_distill.tflite.streaming import proof
from sweeps import rest_is_long

from keras_distill import tflite
from keras_distill.quantization import quantize_aware

layers = keras.layers

#: How a file of windows is made: (target, quantization, whether its student is quantize-aware).
FORMS = {
    "float32": ("micro", "float32", False),
    "int8": ("micro", "int8", False),
    "trained": ("micro", "float32", True),
}


@functools.cache
def student_of(build):
    keras.utils.set_random_seed(1)
    return build()


@functools.cache
def windows_of(build, form):
    """The artifact of a student on windows."""
    target, quantization, aware = FORMS[form]
    student = student_of(build)
    data = streamed_students.windows(student)
    if aware:
        student = quantize_aware(student, data)
    calibration = data if quantization != "float32" else None
    return tflite.convert(student, target, quantization, io="float32", calibration=calibration)


def on_windows(artifact, recording, window, starts, runtime=None):
    """What an artifact of windows gives on windows of one recording."""
    return artifact.predict(np.stack([recording[s : s + window] for s in starts]), runtime)


@pytest.mark.parametrize(
    ("build", "form"),
    rest_is_long(
        list(itertools.product(streamed_students.STUDENTS, FORMS)),
        [
            *((streamed_students.residual, "trained"), (streamed_students.same, "int8")),
        ],
    ),
)
def test_stream_gives_what_windows_give(build, form):
    """In integers bit for bit, in both runtimes, at each hop."""
    artifact = windows_of(build, form)
    student = student_of(build)
    recordings = {"frames": streamed_students.recordings(student, 60)}
    reference = artifact.student.predict if form == "float32" else None
    for hop in streamed_students.STUDENTS[build]:
        made = streaming.streamed(artifact.named, hop, {})
        for runtime in ("litert", "micro"):
            report = proof.prove(made, artifact.named, reference, recordings, runtime)
            for row in report["compared"]:
                assert row["values"] > 30
                assert row["largest_difference"] <= (1e-5 if form == "float32" else 0)
                assert row["on_padded_windows"] is None


@pytest.mark.parametrize("quantization", rest_is_long(["float16", "int16x8", "int4"], ["int16x8"]))
def test_other_quantizations_stream_as_they_are(quantization):
    student = student_of(streamed_students.causal)
    data = streamed_students.windows(student)
    artifact = tflite.convert(
        student, "android", quantization, calibration=None if quantization == "float16" else data,
        stream=2,
    )  # fmt: skip
    (row,) = artifact.report["stream"]["proof"]["compared"]
    assert row["values"] > 50
    assert row["largest_difference"] <= (1e-5 if quantization == "float16" else 0)


def test_causal_stream_is_exact_from_the_first_frame():
    """Against the same layers on the whole recording, which no window and no file has cut."""
    student = student_of(streamed_students.causal)
    recordings = streamed_students.recordings(student, 50)
    whole = keras.models.clone_model(student, input_tensors=keras.Input((50, 4)))
    whole.set_weights(student.get_weights())
    artifact = tflite.convert(student, stream=2)
    got = artifact.predict(recordings)
    np.testing.assert_allclose(got, whole.predict(recordings, verbose=0), atol=1e-5)
    assert artifact.report["stream"]["outputs"] == [{"name": "output", "latency": 0, "warm_up": 0}]


def test_latency_is_what_same_padding_looks_ahead():
    """Of two convolutions of size 3 and 5 and a stride of 2: 1 + 2 + 1, and 2 of pooling."""
    made = streaming.streamed(windows_of(streamed_students.same, "float32").named, 2, {})
    ports = proof.ports_of(made)
    student = student_of(streamed_students.same)
    recording = streamed_students.recordings(student, 48, count=1)
    got = runtimes.predict(made.tflite, ports, {"frames": recording}, "litert")["output"][0]
    (time,) = made.outputs.values()
    expected = student.predict(recording[:, :16], verbose=0)[0]
    inside = slice(time.start, time.high)
    np.testing.assert_allclose(
        got[time.delay + time.start : time.delay + time.high], expected[inside], atol=1e-5
    )
    # An element at `2 j` needs what comes up to 6 frames later, and waits for its step to end.
    assert time.stride == 2
    assert time.offset - 16 == 6


@pytest.fixture(scope="module")
def wake():
    """An int8 stream for a microcontroller, of a student that pools over its window."""
    student = student_of(streamed_students.valid)
    data = streamed_students.windows(student)
    return tflite.convert(student, "micro", "int8", calibration=data, stream=4)


def test_report_says_what_a_frame_costs(wake):
    report = wake.report["stream"]
    assert (report["hop"], report["window"]) == (4, 17)
    assert report["multiply_accumulates_per_frame"] == wake.report["multiply_accumulates"] / 4
    assert report["state_bytes"] == sum(
        np.prod(wake.ports.inputs[i].shape) for i, _ in wake.ports.states
    )
    whole = windows_of(streamed_students.valid, "int8").report
    assert wake.report["multiply_accumulates"] < whole["multiply_accumulates"] / 2
    assert wake.report["arena"]["total"] > 0
    assert "stream" in str(wake.report)


def test_state_comes_out_in_the_scale_in_which_it_goes_in(wake):
    for i, o in wake.ports.states:
        before, after = wake.ports.inputs[i], wake.ports.outputs[o]
        assert before.dtype == after.dtype == "int8"
        assert (before.scale, before.zero_point) == (after.scale, after.zero_point)


@functools.cache
def remembering(quantization):
    """A stream of a student with a convolution and an `LSTM`."""
    student = student_of(streamed_students.lstm)
    data = streamed_students.windows(student) if quantization != "float32" else None
    return tflite.convert(student, "micro", quantization, calibration=data, stream=3)


@functools.cache
def recurrent(build, quantization, hop):
    """A stream of recurrent layers without an operator of their own."""
    student = student_of(build)
    data = None if quantization == "float32" else streamed_students.windows(student)
    if quantization == "trained":
        return tflite.convert(quantize_aware(student, data), "micro", stream=hop)
    return tflite.convert(student, "micro", quantization, calibration=data, stream=hop)


@pytest.mark.parametrize("runtime", ["litert", "litert-reference", "micro"])
@pytest.mark.parametrize(
    "kind", rest_is_long(["pooling", "lstm", "float lstm", "late"], ["pooling", "lstm"])
)
def test_killed_stream_goes_on_from_its_saved_state(request, kind, runtime, tmp_path):
    artifact = (
        request.getfixturevalue("wake") if kind == "pooling"
        else recurrent(streamed_students.late, "int8", 3) if kind == "late"
        else remembering("int8" if kind == "lstm" else "float32")
    )  # fmt: skip
    ports, path, hop = artifact.ports, tmp_path / "state.npz", artifact.ports.hop
    recording = np.random.default_rng(2).normal(size=(12 * hop, 4)).astype("float32")
    whole = artifact.predict(recording[None], runtime)[0]
    state = [ports.inputs[i].quantize(np.zeros(ports.inputs[i].shape)) for i, _ in ports.states]
    for step in range(12):
        if step % 5 == 0:
            # A new interpreter knows nothing of the steps before.
            opened = runtimes.open_file(artifact.tflite, runtime)
        np.savez(path, *state)
        state = list(np.load(path).values())
        arrays = dict(zip((i for i, _ in ports.states), state, strict=True))
        frames = ports.inputs[0].quantize(recording[None, hop * step : hop * (step + 1)])
        results = opened.run([arrays.get(i, frames) for i in range(len(ports.inputs))])
        state = [np.array(results[o]) for _, o in ports.states]
        (o,) = ports.results
        expected = whole[hop * step : hop * (step + 1)] if ports.along_time else whole[step]
        np.testing.assert_array_equal(ports.outputs[o].dequantize(results[o])[0], expected)


def test_stream_starts_anew_from_zeros_in_its_state():
    """In the middle of a recording, without resetting the interpreter."""
    artifact = remembering("int8")
    recordings = streamed_students.recordings(student_of(streamed_students.lstm), 24)
    ports, opened = artifact.ports, runtimes.open_file(artifact.tflite, "micro")
    for recording, expected in zip(recordings, artifact.predict(recordings), strict=True):
        state = {
            i: ports.inputs[i].quantize(np.zeros(ports.inputs[i].shape)) for i, _ in ports.states
        }
        for start in range(0, 24, 3):
            frames = ports.inputs[0].quantize(recording[None, start : start + 3])
            results = opened.run([state.get(i, frames) for i in range(len(ports.inputs))])
            state = {i: np.array(results[o]) for i, o in ports.states}
            (o,) = ports.results
            np.testing.assert_array_equal(
                ports.outputs[o].dequantize(results[o])[0], expected[start : start + 3]
            )


def test_state_of_an_lstm_is_named_after_its_kind():
    names = [remembering("int8").ports.inputs[i].name for i, _ in remembering("int8").ports.states]
    assert names == ["conv1d_state", "lstm_state_0", "lstm_state_1"]


def test_each_recording_starts_from_silence(wake):
    recordings = streamed_students.recordings(student_of(streamed_students.valid), 48)
    both = wake.predict(recordings)
    np.testing.assert_array_equal(both[1:], wake.predict(recordings[1:]))
    assert both.shape == (2, 12, 3)


def test_stream_is_verified_against_the_student(wake):
    report = wake.verify(streamed_students.recordings(student_of(streamed_students.valid), 48))
    assert report["verdict"] == "pass"
    assert set(report["runtimes"]) == {"litert", "litert-reference", "micro"}
    with pytest.raises(ValueError, match="labels"):
        wake.verify(np.zeros((1, 48, 4), "float32"), y=np.zeros(1))


def test_test_vectors_are_the_first_steps_of_a_recording(wake, tmp_path):
    given, expected = wake.test_vectors()
    for i, o in wake.ports.states:
        assert not np.any(given[i][0] - wake.ports.inputs[i].zero_point)
        for before, after in zip(expected[o], given[i][1:], strict=False):
            np.testing.assert_array_equal(before, after)
    wake.save(tmp_path / "firmware")


def test_recordings_are_whole_steps(wake):
    with pytest.raises(ValueError, match="4 frames at a time.*Received: 18 frames"):
        wake.predict(np.zeros((1, 18, 4), "float32"))


def test_stream_is_proven_on_given_recordings():
    student = student_of(streamed_students.valid)
    recordings = streamed_students.recordings(student, 51, count=3)
    artifact = tflite.convert(student, stream=tflite.Stream(hop=2, recordings=recordings))
    report = artifact.report["stream"]["proof"]
    assert (report["recordings"], report["frames"]) == (3, 150)
    with pytest.raises(ValueError, match="two windows of 17 frames. Received: 20"):
        tflite.convert(student, stream=tflite.Stream(2, recordings[:, :20]))


def test_limits_of_a_frame_are_kept(wake):
    facts = wake.report["stream"]
    macs, state = facts["multiply_accumulates_per_frame"], facts["state_bytes"]
    budget.check_stream(facts, macs, state)
    with pytest.raises(tflite.BudgetError, match="multiply-accumulates a frame.*conv1d.*_state"):
        budget.check_stream(facts, macs - 1, state - 1)
    with pytest.raises(ValueError, match="max_state='large'"):
        tflite.Stream(max_state="large")
    with pytest.raises(ValueError, match="Received: max_macs=0"):
        tflite.Stream(max_macs=0)


@pytest.mark.long
def test_stream_that_differs_is_refused():
    """Its weights are changed after the file of windows was made."""
    artifact = windows_of(streamed_students.causal, "int8")
    other = windows_of(streamed_students.causal, "trained")
    made = streaming.streamed(other.named, 2, {})
    recordings = {"frames": streamed_students.recordings(artifact.student.model, 40)}
    with pytest.raises(tflite.ConverterError, match="Output 'output' of the stream differs"):
        proof.prove(made, artifact.named, None, recordings, "litert")


def test_windows_that_pad_themselves_are_told_apart():
    """What is pooled is proven; that windows differ at their edges is said with the number."""
    student = student_of(streamed_students.pooled)
    data = streamed_students.windows(student)
    with pytest.warns(UserWarning, match='the student on the recording so far.*padding="valid"'):
        artifact = tflite.convert(student, "micro", "int8", calibration=data, stream=2)
    output, features = artifact.report["stream"]["proof"]["compared"]
    assert features["name"].endswith("_input")
    assert output["values"] == 0
    assert output["on_padded_windows"] > 0
    assert features["values"] > 50
    assert features["largest_difference"] == 0
    assert artifact.report["warnings"]


@pytest.mark.parametrize(
    ("quantization", "runtime"),
    rest_is_long(
        list(itertools.product(["float32", "int8"], ["litert", "litert-reference", "micro"])),
        [("int8", "micro")],
    ),
)
def test_lstm_goes_on_from_frame_to_frame(quantization, runtime):
    """As one whole recording, and as the file of windows on the first one."""
    student, artifact = student_of(streamed_students.lstm), remembering(quantization)
    recordings = streamed_students.recordings(student, 48)
    whole = keras.models.clone_model(student, input_tensors=keras.Input((48, 4)))
    whole.set_weights(student.get_weights())
    got, expected = artifact.predict(recordings, runtime), whole.predict(recordings, verbose=0)
    if quantization == "float32":
        np.testing.assert_allclose(got, expected, atol=1e-5)
    assert np.sqrt(np.mean((got - expected) ** 2)) < 0.1 * expected.std()
    windows = windows_of(streamed_students.lstm, quantization)
    (output,) = artifact.ports.results
    first = windows.predict(recordings[:, :12], runtime)
    scale = artifact.ports.outputs[output].scale
    assert np.abs(got[:, :12] - first).max() <= (1e-6 if quantization == "float32" else scale / 2)


RECURRENT = {"gru": (streamed_students.gru, (2, 4)), "late": (streamed_students.late, (1, 3))}


@pytest.mark.long
@pytest.mark.parametrize(
    ("quantization", "kind"),
    rest_is_long(
        list(itertools.product(["float32", "int8"], RECURRENT)),
        [("int8", "gru")],
    ),
)
def test_recurrent_layers_go_on_from_frame_to_frame(quantization, kind):
    """As one whole recording; in integers, each runtime gives the same at each hop."""
    build, hops = RECURRENT[kind]
    student = student_of(build)
    recordings = streamed_students.recordings(student, 48)
    whole = keras.models.clone_model(student, input_tensors=keras.Input((48, 4)))
    whole.set_weights(student.get_weights())
    expected = whole.predict(recordings, verbose=0)
    results = {"litert": [], "micro": []}
    for hop in hops[quantization == "float32" :]:
        artifact = recurrent(build, quantization, hop)
        (row,) = artifact.report["stream"]["proof"]["compared"]
        assert row["values"] >= 10
        assert row["largest_difference"] <= (1e-5 if quantization == "float32" else 0)
        names = [artifact.ports.inputs[i].name for i, _ in artifact.ports.states]
        assert any(name.startswith("memory_state") for name in names)
        for runtime, found in results.items():
            # Three frames make the first element of a valid convolution.
            found.append(artifact.predict(recordings, runtime)[:, -expected.shape[1] :])
    for found in results.values():
        if quantization == "float32":
            np.testing.assert_allclose(found[0], expected, atol=1e-5)
        else:
            np.testing.assert_array_equal(*found)
        assert np.sqrt(np.mean((found[0] - expected) ** 2)) < 0.1 * expected.std()


@pytest.mark.long
def test_a_recurrent_layer_may_come_last():
    """Its state is the output, and keeps the output's scale where it goes back in."""
    with pytest.warns(UserWarning, match="is that of the student on the recording so far"):
        artifact = recurrent(streamed_students.last, "int8", 1)
    student = student_of(streamed_students.last)
    recordings = streamed_students.recordings(student, 12)
    rows = artifact.report["stream"]["proof"]["compared"]
    assert [row["largest_difference"] for row in rows] == [0] * len(rows)
    got = artifact.predict(recordings, "micro")[:, -1]
    expected = student.predict(recordings, verbose=0)
    assert np.abs(got - expected).max() <= 3 * artifact.ports.outputs[0].scale


@pytest.mark.long
@pytest.mark.parametrize("quantization", ["float16", "int8"])
def test_lstm_streams_on_phones(quantization):
    student = student_of(streamed_students.lstm)
    data = streamed_students.windows(student) if quantization == "int8" else None
    artifact = tflite.convert(student, "android", quantization, calibration=data, stream=2)
    (row,) = artifact.report["stream"]["proof"]["compared"]
    assert row["values"] == 24
    assert row["largest_difference"] <= (1e-5 if quantization == "float16" else 0)


@pytest.mark.long
def test_an_lstm_of_integers_from_training_streams():
    """Bit for bit as on windows; what its operator can't wait for is refused with the way out."""
    report = recurrent(streamed_students.lstm, "trained", 3).report["stream"]["proof"]
    (row,) = report["compared"]
    assert (row["values"], row["largest_difference"]) == (24, 0)
    data = np.random.default_rng(0).normal(size=(20, 8, 4)).astype("float32")
    late = _of(layers.Conv1D(4, 3), layers.LSTM(3, return_sequences=True, name="memory"))
    with pytest.raises(ValueError, match="'memory'.*before the recording.*padding=\"causal\""):
        tflite.convert(quantize_aware(late, data), "micro", stream=1)


def test_lstm_of_other_integers_is_refused():
    student = student_of(streamed_students.lstm)
    data = streamed_students.windows(student)
    with pytest.raises(ValueError, match="Layer 'lstm.*int16x8.*in int8"):
        tflite.convert(student, "android", "int16x8", calibration=data, stream=2)


def _of(*parts, shape=(8, 4)):
    return streamed_students._model(shape, *parts)


def _attention():
    inputs = keras.Input((8, 4))
    return keras.Model(inputs, layers.MultiHeadAttention(1, 4, name="attention")(inputs, inputs))


def _positions():
    inputs = keras.Input((8, 4))
    table = np.arange(32, dtype="float32").reshape(8, 4)
    return keras.Model(inputs, layers.Lambda(lambda x: x + table, name="positions")(inputs))


def _squeeze():
    inputs = keras.Input((8, 4))
    gate = layers.Dense(4, "sigmoid")(layers.GlobalAveragePooling1D()(inputs))
    return keras.Model(inputs, layers.Multiply(name="gate")([inputs, layers.Reshape((1, 4))(gate)]))


REFUSED = {
    "attention": (_attention, "attention.*frame by frame.*whole window at every frame"),
    "squeeze": (_squeeze, "frame by frame.*squeeze and excitation"),
    "positions": (_positions, "frame by frame.*position embedding"),
    "slopes": (lambda: _of(layers.PReLU(name="slope")), r"'slope'.*`PReLU` `shared_axes=\[1\]`"),
    "backwards": (
        lambda: _of(layers.Bidirectional(layers.LSTM(3, return_sequences=True), name="both")),
        "Layer 'both'.*can't run frame by frame.*both ways",
    ),
    "over time": (
        lambda: _of(layers.LayerNormalization(axis=1, name="norm")),
        "'norm'.*frame by frame.*normalize over channels",
    ),
    "reshape": (
        lambda: _of(layers.Reshape((4, 8), name="fold")),
        r"reshapes \[1, 8, 4\] to \[1, 4, 8\] across time",
    ),
    "backwards gru": (
        lambda: _of(layers.GRU(3, go_backwards=True, name="memory")),
        "'memory'.*GRU.*Use an `LSTM`, a `GRU`",
    ),
    "masked": (
        lambda: _of(layers.Masking(), layers.GRU(3, name="memory")),
        "'memory'.*frame by frame: it is given a mask",
    ),
    "inexact start": (
        lambda: _of(layers.Conv1D(4, 5, padding="same"), layers.Conv1D(4, 3, padding="same"),
                    layers.GRU(3, return_sequences=True, name="memory")),
        "'memory'.*before its first frame.*Use `padding=\"causal\"`",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_stream_is_refused_by_name(kind):
    build, message = REFUSED[kind]
    with pytest.raises(ValueError, match=message):
        tflite.convert(build(), stream=2)


def test_arguments_that_do_not_fit_are_refused():
    student = student_of(streamed_students.valid)
    with pytest.raises(ValueError, match="multiple of 2 frames.*Received: a hop of 3"):
        tflite.convert(student, stream=3)
    with pytest.raises(ValueError, match='not for quantization="dynamic"'):
        tflite.convert(student, quantization="dynamic", stream=2)
    with pytest.raises(ValueError, match="Received: batch_size=None"):
        tflite.convert(student, batch_size=None, stream=2)
    with pytest.raises(ValueError, match="Received: stream=0"):
        tflite.convert(student, stream=0)
    with pytest.raises(ValueError, match="Received: hop=0"):
        tflite.Stream(0)
    with pytest.raises(ValueError, match='exclude each other. Received: recurrent="unroll"'):
        tflite.convert(student, stream=2, recurrent="unroll")
