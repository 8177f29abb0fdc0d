"""The features of sounds that TFLite Micro's audio front end computes."""

from typing import Any

import numpy as np
import tensorflow as tf


class MicroFeatures:
    """What TFLite Micro's audio front end makes of a sound, in training as in firmware.

    Windows of 30 ms, each 10 ms after the one before, in 40 mel bands from 125 to 7,500 Hz, with
    noise reduction, gain control and a logarithm, all in integers. The package `pymicro-features`
    has it compiled for Python; a kit for firmware configures TFLite Micro's own sources likewise,
    so that both give the same numbers. Each call starts anew, as firmware does after a reset: the
    estimate of the noise needs a while.

    Args:
        sample_rate: Samples per second of the sounds. The front end is made for 16,000.

    Raises:
        ValueError: The sample rate is another one.
        ImportError: `pymicro-features` is not installed.

    Example:

    >>> features = keras_distill.data.MicroFeatures(16000)
    >>> features(np.zeros(16000, "int16")).shape
    (98, 40)
    >>> dataset = sounds.map(lambda audio, label: (features(audio), label))
    """

    #: Samples per second.
    RATE = 16000
    #: Features of a frame.
    BANDS = 40
    #: Samples from one frame to the next.
    STEP = 160
    #: What stands for 1 in the front end's integers, as in ESPHome's and Arduino's wake words.
    SCALE = 0.0390625

    def __init__(self, sample_rate: int):
        if sample_rate != self.RATE:
            raise ValueError(
                f"`sample_rate` must be {self.RATE}, for which the front end's bands are made. "
                f"Received: sample_rate={sample_rate!r}. Resample the sounds, for example by "
                f"`scipy.signal.resample_poly(audio, {self.RATE}, {sample_rate})`."
            )
        try:
            import pymicro_features
        except ImportError as error:
            raise ImportError(
                "TFLite Micro's front end is not installed: `pip install keras-distill[sound]`."
            ) from error
        self._new = pymicro_features.MicroFrontend

    def __call__(self, audio: Any) -> Any:
        """The features of a sound.

        Args:
            audio: Samples of one channel, of shape `(samples,)`, int16 or float from -1 to 1.
                Floats beyond are clipped.

        Returns:
            Features of shape `(frames, 40)`, float32, of at least 0: an array, or a tensor where
            `audio` is one. A sound of less than 480 samples has no frame.

        Raises:
            ValueError: The sound has several channels, another type, or NaN.
        """
        if not tf.is_tensor(audio):
            return self._features(audio)
        frames = tf.numpy_function(self._features, [audio], tf.float32)
        return tf.ensure_shape(frames, (None, self.BANDS))

    def _features(self, audio: Any) -> np.ndarray:
        samples = _integers(np.asarray(audio))
        front_end, frames = self._new(), []
        for start in range(0, len(samples) - self.STEP + 1, self.STEP):
            chunk = samples[start : start + self.STEP].tobytes()
            frames.append(front_end.process_samples(chunk).features)
        found = [frame for frame in frames if frame]
        return np.asarray(found, "float32").reshape(-1, self.BANDS)


def _integers(audio):
    """A sound in 16 bits, little-endian."""
    if audio.ndim != 1:
        raise ValueError(
            f"`audio` must be of one channel, of shape (samples,). Received: shape {audio.shape}"
        )
    if audio.dtype == np.int16:
        return audio.astype("<i2")
    if not np.issubdtype(audio.dtype, np.floating):
        raise ValueError(
            f"`audio` must be int16 or float from -1 to 1. Received: {audio.dtype.name}"
        )
    if not np.isfinite(audio).all():
        raise ValueError("`audio` holds NaN or infinity.")
    return np.clip(np.round(audio * 2.0**15), -(2**15), 2**15 - 1).astype("<i2")
