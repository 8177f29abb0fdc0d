import keras
import numpy as np
import pytest
import scipy.signal

from keras_distill import data, tflite


@pytest.fixture(scope="session")
def student(split):
    """A small convolutional student, trained."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            keras.layers.Conv2D(16, 3, padding="same", use_bias=False, name="stem"),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.DepthwiseConv2D(3, padding="same", activation="relu", name="depthwise"),
            keras.layers.MaxPool2D(),
            keras.layers.Conv2D(24, 3, activation="relu", name="mixer"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(10, name="logits"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
    model.fit(*split[0], epochs=25, batch_size=64, verbose=0)
    return model


@pytest.fixture(scope="session")
def converted(student, split):
    """Converts the student, each combination once."""
    done = {}

    def convert(target, quantization, **options):
        key = (target, quantization, *sorted(options.items()))
        if key not in done:
            done[key] = tflite.convert(
                student, target, quantization, calibration=split[0][0][:300], **options
            )
        return done[key]

    return convert


@pytest.fixture(scope="session")
def sound(data_dir):
    """Spoken digits at 16 kHz, silence, and a loud tone that is clipped."""
    with np.load(data_dir / "fsdd" / "fsdd.npz") as f:
        audio = f["audio"][: f["offsets"][3]].astype("float64")
    speech = scipy.signal.resample_poly(audio, 2, 1)
    tone = 60000 * np.sin(np.arange(8000) / 7)
    parts = np.concatenate([speech, np.zeros(4800), tone])
    return np.clip(parts, -(2**15), 2**15 - 1).astype("int16")


@pytest.fixture(scope="session")
def mel():
    """Windows that are neither a power of two nor whole steps."""
    return data.LogMel(16000, bands=20, window=0.03, step=0.0125)


@pytest.fixture(scope="session")
def mel_student(mel, sound):
    """A student on windows of eight log-mel frames, and such windows of the sound."""
    keras.utils.set_random_seed(8)
    student = keras.Sequential(
        [
            keras.Input((8, 20), name="frames"),
            keras.layers.Conv1D(6, 3, activation="relu"),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(3, name="scores"),
        ]
    )
    frames = np.asarray(mel(sound))
    return student, np.stack([frames[i : i + 8] for i in range(0, len(frames) - 8, 5)])
