"""Features of sounds inside of a file for Android."""

import keras
import numpy as np
import pytest
from keras_distill.tflite.inspect import inspect

from keras_distill import data, tflite


@pytest.fixture(scope="module")
def listener():
    """A student on samples."""
    return keras.Sequential(
        [
            keras.Input((2000,), name="samples"),
            data.LogMel(8000, bands=10),
            keras.layers.Conv1D(4, 3, activation="relu"),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(3),
        ]
    )


def test_file_takes_samples(listener, data_dir):
    """LiteRT has the Fourier transform."""
    with np.load(data_dir / "fsdd" / "fsdd.npz") as f:
        sounds = f["audio"][:10000].reshape(5, 2000) / np.float32(32768)
    sounds = np.concatenate([sounds, np.zeros((1, 2000), "float32"), np.sign(sounds[:1])])
    artifact = tflite.convert(listener)
    assert inspect(artifact.tflite).counts["RFFT2D"] == 1
    expected = listener.predict(sounds, verbose=0)
    np.testing.assert_allclose(artifact.predict(sounds), expected, rtol=0, atol=1e-4)


def test_microcontrollers_take_features(listener):
    with pytest.raises(ValueError, match="TFLite Micro has no operator RFFT2D"):
        tflite.convert(listener, "micro")
