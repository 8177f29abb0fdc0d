"""Features of sounds."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_distill.checks import positive, whole_number


def log_mel(
    sample_rate: int,
    seconds: float,
    bands: int = 40,
    window: float = 0.032,
    step: float = 0.016,
    max_hz: float | None = None,
) -> Callable[[Any], tf.Tensor]:
    """A function from a waveform to its log-mel spectrogram, for `Dataset.map`.

    Args:
        sample_rate: Samples per second.
        seconds: Length to which waveforms are cut, or padded with silence at both ends.
        bands: Number of mel bands, from 20 Hz up.
        window: Length of the analysis window, in seconds.
        step: Time from one frame to the next, in seconds.
        max_hz: Highest frequency, in hertz. Defaults to `None`: half the sample rate.

    Returns:
        A function from a waveform, shape `(samples,)`, int16 or float from -1 to 1, to
        `ln(energy + 1e-6)`, float32, shape `(frames, bands)`. It raises a `ValueError` for other
        integers, whose scale is unknown: TensorFlow Datasets returns 16-bit samples as int64.

    Raises:
        TypeError: If a number is expected and something else given.
        ValueError: If `bands` isn't a whole number of at least 1, or another isn't above 0.

    Example:

    >>> spectrogram = keras_distill.data.log_mel(sample_rate=8000, seconds=1.0)
    >>> sounds = keras_distill.data.load("spoken_digit")
    >>> train = sounds.train.map(lambda x, y: (spectrogram(tf.cast(x, tf.int16)), y))
    """
    whole_number("bands", bands, 1)
    sizes = {"sample_rate": sample_rate, "seconds": seconds, "window": window, "step": step}
    for name, value in {**sizes, "max_hz": 1.0 if max_hz is None else max_hz}.items():
        positive(name, value)
    length, size = round(sample_rate * seconds), round(sample_rate * window)
    fft_length = 1 << (size - 1).bit_length()
    to_mel = tf.signal.linear_to_mel_weight_matrix(
        bands, fft_length // 2 + 1, sample_rate, 20.0, max_hz or sample_rate / 2
    )

    def spectrogram(audio: Any) -> tf.Tensor:
        waveform = _of_length(_floats(audio), length)
        spectrum = tf.signal.stft(waveform, size, round(sample_rate * step), fft_length)
        return tf.math.log(tf.abs(spectrum) ** 2 @ to_mel + 1e-6)

    return spectrogram


def _floats(audio: Any) -> tf.Tensor:
    """A waveform as float32 from -1 to 1."""
    audio = tf.convert_to_tensor(audio)
    if audio.dtype.is_integer and audio.dtype != tf.int16:
        raise ValueError(
            f"`audio` must be int16 or float from -1 to 1. Received: {audio.dtype.name}. If it "
            "holds 16-bit samples (as TensorFlow Datasets returns them), use "
            "`tf.cast(audio, tf.int16)`; otherwise divide it by its largest value."
        )
    return tf.cast(audio, tf.float32) / (2**15 if audio.dtype == tf.int16 else 1)


def _of_length(waveform: tf.Tensor, length: int) -> tf.Tensor:
    """The middle of a waveform, or all of it padded with zeros at both ends."""
    start = tf.maximum(tf.shape(waveform)[0] - length, 0) // 2
    waveform = waveform[start : start + length]
    missing = length - tf.shape(waveform)[0]
    padded = tf.pad(waveform, [[missing // 2, missing - missing // 2]])
    return tf.ensure_shape(padded, [length])
