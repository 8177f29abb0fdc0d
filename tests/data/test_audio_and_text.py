"""Spectrograms and windows."""

import numpy as np
import pytest
import tensorflow as tf

from keras_distill import data


def test_log_mel_of_a_tone_peaks_in_the_band_of_its_frequency():
    rate, bands = 8000, 40
    spectrogram = data.log_mel(rate, seconds=1.0, bands=bands)
    mel = lambda hz: 1127 * np.log1p(hz / 700)  # noqa: E731
    centers = np.linspace(mel(20), mel(4000), bands + 2)[1:-1]
    for hz in (300, 1000, 2500):
        tone = np.sin(2 * np.pi * hz * np.arange(rate) / rate).astype("float32")
        features = spectrogram(tf.constant(tone)).numpy()
        assert features.shape == (61, bands)
        peak = int(features[5:-5].mean(0).argmax())
        assert abs(centers[peak] - mel(hz)) <= centers[1] - centers[0]


def test_log_mel_scales_cuts_and_fills():
    rng = np.random.default_rng(0)
    wave = rng.uniform(-1, 1, 5000).astype("float32")
    spectrogram = data.log_mel(8000, seconds=1.0)
    np.testing.assert_allclose(
        spectrogram(tf.constant(np.round(wave * 32767).astype("int16"))),
        spectrogram(tf.constant(wave)),
        atol=5e-3,
    )
    pcm = tf.constant([-32768, 32767] * 2500, "int16")
    exact = tf.constant([-1, 32767 / 32768] * 2500, "float32")
    np.testing.assert_array_equal(spectrogram(pcm), spectrogram(exact))
    silence = spectrogram(tf.zeros([10])).numpy()
    np.testing.assert_allclose(silence, np.log(1e-6), rtol=1e-6)
    long = np.concatenate([np.zeros(1000), np.pad(wave, 1500), np.ones(1000)]).astype("float32")
    np.testing.assert_array_equal(spectrogram(long), spectrogram(wave))


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8"])
def test_integers_of_unknown_scale_are_refused(dtype):
    """As TensorFlow Datasets gives 16-bit samples as int64, they would all be silence."""
    sounds = tf.data.Dataset.from_tensors(tf.ones([8000], dtype))
    with pytest.raises(ValueError, match=rf"{dtype}.*tf.cast\(audio, tf.int16\)"):
        sounds.map(data.log_mel(8000, seconds=1.0))


def test_log_mel_of_spoken_digits(data_dir):
    with np.load(data_dir / "fsdd" / "fsdd.npz") as f:
        sounds = [f["audio"][f["offsets"][i] : f["offsets"][i + 1]] for i in range(4)]
    spectrogram = data.log_mel(8000, seconds=0.5, bands=20)
    dataset = tf.data.Dataset.from_tensor_slices(tf.ragged.constant(sounds, dtype=tf.int16))
    batch = next(iter(dataset.map(spectrogram).batch(4)))
    assert batch.shape == (4, 30, 20)
    assert np.isfinite(batch).all()
