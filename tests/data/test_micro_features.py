"""TFLite Micro's audio front end in Python."""

import builtins

import numpy as np
import pytest
import tensorflow as tf
from scipy import signal

from keras_distill import data


@pytest.fixture
def features():
    pytest.importorskip("pymicro_features", reason="pymicro-features is not installed")
    return data.MicroFeatures(16000)


@pytest.fixture
def speech(data_dir):
    """Three spoken digits, one after the other, at 16 kHz."""
    with np.load(data_dir / "fsdd" / "fsdd.npz") as f:
        audio = f["audio"][: f["offsets"][3]]
    return np.clip(signal.resample_poly(audio.astype("float64"), 2, 1), -(2**15), 2**15 - 1).astype(
        "int16"
    )


def test_frames_come_each_hundredth_of_a_second(features, speech):
    """Of 30 ms each, the first when they are complete."""
    found = features(speech)
    assert found.shape == (len(speech) // 160 - 2, 40)
    assert found.dtype == np.float32
    assert features(speech[:479]).shape == (0, 40)
    assert features(speech[:480]).shape == (1, 40)
    np.testing.assert_array_equal(features(speech[:3200]), found[:18])
    # Integers, scaled.
    np.testing.assert_array_equal(found / data.MicroFeatures.SCALE % 1, 0)


def test_tone_is_loudest_in_the_band_of_its_frequency(features):
    times = np.arange(4000) / 16000
    low, high = (features(0.3 * np.sin(2 * np.pi * hertz * times)) for hertz in (300, 3000))
    assert low[0].argmax() < 8
    assert high[0].argmax() > 25


def test_silence_is_zero_and_clipping_is_finite(features):
    assert not features(np.zeros(4800, "int16")).any()
    loud = np.where(np.arange(4800) // 20 % 2, 32767, -32768).astype("int16")
    assert np.isfinite(features(loud)).all()
    assert features(loud).max() > 10
    # Floats beyond 1 are clipped, not wrapped around.
    np.testing.assert_array_equal(features(np.where(loud > 0, 1.5, -1.5)), features(loud))


def test_sounds_are_mapped_in_a_dataset(features, speech):
    dataset = tf.data.Dataset.from_tensors(speech).map(features)
    assert dataset.element_spec.shape == (None, 40)
    (found,) = dataset
    np.testing.assert_array_equal(found, features(speech))
    np.testing.assert_array_equal(features(speech / 2.0**15), found)


def test_other_sounds_are_refused(features):
    with pytest.raises(ValueError, match=r"Received: sample_rate=44100.*resample_poly"):
        data.MicroFeatures(44100)
    for audio, message in (
        (np.zeros((4800, 2), "int16"), r"one channel.*Received: shape \(4800, 2\)"),
        (np.zeros(4800, "int64"), "Received: int64"),
        (np.full(4800, np.nan), "NaN"),
    ):
        with pytest.raises(ValueError, match=message):
            features(audio)


def test_missing_package_is_named(monkeypatch):
    original = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "pymicro_features":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"keras-distill\[sound\]"):
        data.MicroFeatures(16000)
