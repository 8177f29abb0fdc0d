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


def log_mel_by_formula(wave, length, bands):
    """Frames of 256 samples, 128 apart, of the middle of a sound at 8 kHz, in float64."""
    start = max(len(wave) - length, 0) // 2
    wave = wave[start : start + length]
    missing = length - len(wave)
    wave = np.pad(wave, (missing // 2, missing - missing // 2))
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(256) / 256)
    frames = np.stack([wave[i : i + 256] * hann for i in range(0, length - 255, 128)])
    energy = np.abs(np.fft.rfft(frames)) ** 2
    mel = 1127 * np.log1p(np.linspace(0, 4000, 129) / 700)
    edges = np.linspace(1127 * np.log1p(20 / 700), mel[-1], bands + 2)
    up = (mel[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    down = (edges[2:] - mel[:, None]) / (edges[2:] - edges[1:-1])
    triangles = np.maximum(np.minimum(up, down), 0)
    return np.log(energy @ triangles + 1e-6)


def test_log_mel_of_spoken_digits(data_dir):
    with np.load(data_dir / "fsdd" / "fsdd.npz") as f:
        sounds = [f["audio"][f["offsets"][i] : f["offsets"][i + 1]] for i in range(4)]
    spectrogram = data.log_mel(8000, seconds=0.5, bands=20)
    dataset = tf.data.Dataset.from_tensor_slices(tf.ragged.constant(sounds, dtype=tf.int16))
    batch = next(iter(dataset.map(spectrogram).batch(4)))
    expected = [log_mel_by_formula(sound / 32768, 4000, 20) for sound in sounds]
    np.testing.assert_allclose(batch, expected, atol=2e-3)


def test_layer_computes_what_the_function_does(data_dir):
    """Also for sounds in a batch and in a `Dataset`, saved and restored."""
    with np.load(data_dir / "fsdd" / "fsdd.npz") as f:
        sounds = f["audio"][:12000].reshape(3, 4000)
    for settings in ({}, {"bands": 20, "window": 0.03, "step": 0.0125, "max_hz": 3500}):
        layer = data.LogMel(8000, **settings)
        function = data.log_mel(8000, seconds=0.5, **settings)
        expected = np.stack([function(sound) for sound in sounds])
        got = layer(sounds)
        assert layer.compute_output_shape((None, 4000)) == (None, *got.shape[1:])
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-3)
        again = data.LogMel.from_config(layer.get_config())
        np.testing.assert_array_equal(again(sounds), got)
        np.testing.assert_allclose(layer(sounds / np.float32(32768)), got, rtol=0, atol=1e-6)
        mapped = next(iter(tf.data.Dataset.from_tensors(sounds[0]).map(layer)))
        np.testing.assert_allclose(mapped, got[0], rtol=0, atol=1e-3)


def test_layer_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="int64.*Cast 16-bit"):
        data.LogMel(8000)(np.zeros(4000, "int64"))
    for wrong in ({"window": 0.0002}, {"step": 0.04}, {"step": 1e-6}):
        with pytest.raises(ValueError, match="which are .* samples"):
            data.LogMel(8000, **wrong)
