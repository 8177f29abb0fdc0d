"""What a conversion and its child process hand each other arrives as it was, without pickles."""

import keras
import numpy as np
import pytest
from keras_distill.tflite import BudgetError, Calibration, EthosU, handover, runtimes
from keras_distill.tflite.artifact import Examples

ARGUMENTS = {
    "io": ("int8", "float32"),
    "calibration": Calibration(
        {"a/b": np.arange(6, dtype="float32").reshape(2, 3), "ids": np.array([[1], [7]], "int32")},
        samples=2,
        ranges="percentile",
        percentile=99.0,
        training_range=(-1.0, 2.5),
    ),
    "precision": {"stem": "float32"},
    "recurrent": None,
    "stream": None,
    "preprocessing": keras.layers.Rescaling(0.5),
    "postprocessing": "softmax",
    "labels": ["a", "ü"],
    "batch_size": None,
    "input_signature": {"x": keras.InputSpec(shape=(None, 3), dtype="float32", name="x")},
    "max_flash": "64KB",
    "max_arena": np.int64(3000),
}


def test_arguments_arrive(tmp_path):
    target = EthosU("ethos-u55-128", memory_mode="Sram_Only")
    handover.write_arguments(tmp_path, target, "int8", ARGUMENTS)
    read = handover.read_arguments(tmp_path)
    given, got = ARGUMENTS["calibration"], read.pop("calibration")
    assert list(got.data) == list(given.data)
    for name, array in given.data.items():
        np.testing.assert_array_equal(got.data[name], array)
        assert got.data[name].dtype == array.dtype
    options = ("samples", "ranges", "percentile", "training_range")
    assert [getattr(got, x) for x in options] == [getattr(given, x) for x in options]
    spec = read.pop("input_signature")["x"]
    assert (spec.shape, spec.dtype, spec.name) == ((None, 3), "float32", "x")
    assert (read.pop("target"), read.pop("quantization")) == (target, "int8")
    # Layers travel in files of their own.
    expected = {**ARGUMENTS, "preprocessing": None, "io": ["int8", "float32"]}
    assert read == {name: expected[name] for name in read}
    assert len(read) == len(ARGUMENTS) - 2


def test_an_outcome_arrives(tmp_path):
    ports = runtimes.Ports(
        (runtimes.Port("x", (None, 4), "int8", 0.1 + 0.2, -3), runtimes.Port("s", (1, 2), "int8")),
        (runtimes.Port("y", (1, 2), "float32"), runtimes.Port("s", (1, 2), "int8")),
        states=((1, 1),),
        along_time=(0,),
        hop=4,
    )
    outcome = handover.Outcome(
        b"file", b"named file", None, {"bytes": 4, "error": float("inf")}, ports,
        Examples({"x": np.float32([[1 / 3]])}, "calibration", prove=True), ("careful",),
    )  # fmt: skip
    handover.write_outcome(tmp_path, outcome)
    read = handover.read_outcome(tmp_path)
    assert read.ports == ports
    for name in ("tflite", "named", "compiled", "report", "warnings"):
        assert getattr(read, name) == getattr(outcome, name)
    assert read.examples.arrays["x"] == outcome.examples.arrays["x"]
    assert (read.examples.source, read.examples.prove) == ("calibration", True)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (BudgetError("over"), BudgetError),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), ValueError),
        (NotImplementedError("never"), NotImplementedError),
    ],
)
def test_errors_arrive_by_kind(tmp_path, error, kind):
    assert handover.read_error(tmp_path) is None
    assert handover.write_error(tmp_path, error)
    read = handover.read_error(tmp_path)
    assert type(read) is kind
    assert str(read) == str(error)


def test_unknown_errors_are_left_to_the_child(tmp_path):
    assert not handover.write_error(tmp_path, KeyError("x"))
    assert handover.read_error(tmp_path) is None
