"""Features of sounds and of continuous recordings."""

import numpy as np
import tensorflow as tf


def log_mel(
    sample_rate: int,
    seconds: float,
    bands: int = 40,
    window: float = 0.032,
    step: float = 0.016,
    max_hz: float | None = None,
):
    """A function from a waveform to its log-mel spectrogram, for `Dataset.map`.

    Args:
        sample_rate: Samples per second.
        seconds: Length to which waveforms are cut, or filled up with silence at both ends.
        bands: Number of mel bands, from 20 Hz up.
        window: Length of the analysis window, in seconds.
        step: Time from one frame to the next, in seconds.
        max_hz: Highest frequency. Defaults to half the sample rate.

    Returns:
        A function from a waveform, shape `(samples,)`, int16 or float from -1 to 1, to
        `ln(energy + 1e-6)`, float32, shape `(frames, bands)`. It raises a `ValueError` for other
        integers, which may be of any scale: TensorFlow Datasets gives 16-bit samples as int64.

    Example:

    >>> spectrogram = keras_distill.data.log_mel(sample_rate=8000, seconds=1.0)
    >>> sounds = keras_distill.data.load("spoken_digit")
    >>> train = sounds.train.map(lambda x, y: (spectrogram(tf.cast(x, tf.int16)), y))
    """
    length, size = round(sample_rate * seconds), round(sample_rate * window)
    fft_length = 1 << (size - 1).bit_length()
    to_mel = tf.signal.linear_to_mel_weight_matrix(
        bands, fft_length // 2 + 1, sample_rate, 20.0, max_hz or sample_rate / 2
    )

    def spectrogram(audio):
        audio = tf.convert_to_tensor(audio)
        if audio.dtype.is_integer and audio.dtype != tf.int16:
            raise ValueError(
                f"`audio` must be int16 or float from -1 to 1. Received: {audio.dtype.name}. Where "
                "it holds 16-bit samples (as TensorFlow Datasets gives them): "
                "`tf.cast(audio, tf.int16)`; else divide it by its largest value."
            )
        audio = tf.cast(audio, tf.float32) / (2**15 if audio.dtype == tf.int16 else 1)
        start = tf.maximum(tf.shape(audio)[0] - length, 0) // 2
        audio = audio[start : start + length]
        missing = length - tf.shape(audio)[0]
        audio = tf.pad(audio, [[missing // 2, missing - missing // 2]])
        audio = tf.ensure_shape(audio, [length])
        spectrum = tf.signal.stft(audio, size, round(sample_rate * step), fft_length)
        return tf.math.log(tf.abs(spectrum) ** 2 @ to_mel + 1e-6)

    return spectrogram


def windows(
    signal: np.ndarray, labels: np.ndarray, length: int, step: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cuts a continuous recording into windows, each with one label.

    Windows in which the label changes are left out.

    Args:
        signal: Recording, shape `(time, channels)`.
        labels: Label at each time, shape `(time,)`.
        length: Length of a window, in time steps.
        step: Time steps from the start of one window to the next.

    Returns:
        Windows, shape `(count, length, channels)`, and their labels, shape `(count,)`.

    Raises:
        ValueError: If the arrays differ in length or are shorter than one window.
    """
    signal, labels = np.asarray(signal), np.asarray(labels)
    if len(signal) != len(labels) or len(signal) < length:
        raise ValueError(
            f"`signal` and `labels` must be equally long, and at least `length={length}`. "
            f"Received: {len(signal)} and {len(labels)} time steps."
        )
    cut = np.lib.stride_tricks.sliding_window_view
    x = cut(signal, length, axis=0)[::step].swapaxes(1, 2)
    y = cut(labels, length)[::step]
    same = (y == y[:, :1]).all(axis=1)
    return x[same], y[same, 0]
