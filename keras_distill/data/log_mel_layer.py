"""Log-mel spectrograms as a Keras layer."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_distill.checks import positive, whole_number


@keras.saving.register_keras_serializable(package="keras_distill")
class LogMel(keras.layers.Layer):
    """Log-mel spectrograms of sounds: what `log_mel` computes, as a layer.

    It can be the first layer of a student, whose file for Android then takes samples, or it
    computes features for training and is given as `front_end` to the kit of a stream, which then
    has the same features in C++.

    Args:
        sample_rate: Samples per second.
        bands: Number of mel bands, from 20 Hz up.
        window: Length of the analysis window, in seconds.
        step: Time from one frame to the next, in seconds, no longer than the window.
        max_hz: Highest frequency, in hertz. Defaults to `None`: half the sample rate.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        `(..., samples)`, int16 or float from -1 to 1.

    Output shape:
        `(..., frames, bands)`, `ln(energy + 1e-6)`. A frame begins with each step, and ends within
        the sound.

    Raises:
        TypeError: If a number is expected and something else given.
        ValueError: If `bands` isn't a whole number of at least 1, another isn't above 0, the window
            has fewer than 4 samples, or the step is longer than the window.

    Example:

    >>> layer = keras_distill.data.LogMel(16000)
    >>> layer(np.zeros(16000, "int16")).shape
    TensorShape([61, 40])
    """

    def __init__(
        self,
        sample_rate: int,
        bands: int = 40,
        window: float = 0.032,
        step: float = 0.016,
        max_hz: float | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        whole_number("bands", bands, 1)
        sizes = {"sample_rate": sample_rate, "window": window, "step": step}
        for name, value in {**sizes, "max_hz": 1.0 if max_hz is None else max_hz}.items():
            positive(name, value)
        self._config = {**sizes, "bands": bands, "max_hz": max_hz}
        #: Samples per second, features of a frame, samples from one frame to the next.
        self.RATE, self.BANDS, self.STEP = sample_rate, bands, round(sample_rate * step)
        #: Samples of a window.
        self.WINDOW = round(sample_rate * window)
        if self.WINDOW < 4 or not 1 <= self.STEP <= self.WINDOW:
            raise ValueError(
                "`window` must be at least 4 samples long, and `step` at least 1 and no more than "
                f"the window. Received: window={window!r} and step={step!r} seconds, which are "
                f"{self.WINDOW} and {self.STEP} samples"
            )
        #: Points of the Fourier transform.
        self.POINTS = 1 << (self.WINDOW - 1).bit_length()
        angles = 2 * np.pi * np.arange(self.WINDOW) / (self.WINDOW // 2 * 2)
        self.hann = (0.5 - 0.5 * np.cos(angles)).astype("float32")
        with tf.init_scope():
            mel = tf.signal.linear_to_mel_weight_matrix(
                bands, self.POINTS // 2 + 1, sample_rate, 20.0, max_hz or sample_rate / 2
            )
            #: Weights of the frequencies in each band, of shape `(POINTS / 2 + 1, bands)`.
            self.mel = mel.numpy()

    def call(self, audio: Any) -> Any:
        """The features of sounds."""
        dtype = keras.backend.standardize_dtype(audio.dtype)
        if "int" in dtype and dtype != "int16":
            raise ValueError(
                f"`audio` must be int16 or float from -1 to 1. Received: {dtype}. Cast 16-bit "
                "samples to int16; divide others by their largest value."
            )
        samples = keras.ops.cast(audio, "float32") / (2.0**15 if dtype == "int16" else 1.0)
        frames = keras.ops.extract_sequences(samples, self.WINDOW, self.STEP)
        real, imaginary = keras.ops.rfft(frames * self.hann, self.POINTS)
        energy = keras.ops.matmul(real * real + imaginary * imaginary, self.mel)
        return keras.ops.cast(keras.ops.log(energy + 1e-6), self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """`(..., frames, bands)`."""
        *batch, samples = input_shape
        frames = None if samples is None else (samples - self.WINDOW) // self.STEP + 1
        return (*batch, frames, self.BANDS)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {**super().get_config(), **self._config}
