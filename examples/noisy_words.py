"""Clips of recorded words in noise and music, for examples that listen."""

import numpy as np
import scipy.signal

import keras_distill

RATE, FRAME = 16000, 160  # Samples a second, and from one frame of features to the next.


def read(file):
    """The recorded words at the front end's rate, and the number of each one's speaker."""
    with np.load(file) as data:
        words = np.split(data["audio"].astype("float32"), data["offsets"][1:-1])
        return [scipy.signal.resample_poly(x, 2, 1) for x in words], data["speaker"]


def noise(rng, count, heard):
    """Colored noise, or chords of plucked tones; other colors and timbres if not `heard`."""
    if rng.random() < 0.5:
        spectrum = np.fft.rfft(rng.normal(size=count))
        color = rng.uniform(0.0, 1.0) if heard else rng.uniform(1.0, 1.5)
        return np.fft.irfft(spectrum / np.maximum(np.arange(len(spectrum)), 1) ** color, count)
    time, sound = np.arange(count) / RATE, np.zeros(count)
    for start in np.arange(0, count / RATE, rng.uniform(0.15, 0.5)):
        for pitch in rng.choice(110 * 2 ** (np.arange(36) / 12), 3):
            since = np.maximum(time - start, 0)
            wave = np.sin(2 * np.pi * pitch * since) if heard else (since * pitch % 1 - 0.5)
            sound += wave * np.exp(-4 * since) * (time >= start)
    return sound


def clips(rng, words, count, length, heard=True):
    """Clips of words between pauses, in noise 0 to 20 dB lower, and where somebody speaks.

    Args:
        rng: NumPy's generator.
        words: Recorded words, arrays of samples.
        count: Number of clips.
        length: Frames of 10 ms of each.
        heard: Whether the noise is of the kinds for training.

    Returns:
        `(sounds, spoken)`, float from -1 to 1 and bool, of shape `(count, samples)`.
    """
    size = length * FRAME
    sounds, spoken = np.zeros((count, size), "float32"), np.zeros((count, size), bool)
    for sound, place in zip(sounds, spoken, strict=True):
        at = int(rng.integers(0, RATE))
        while at < size:
            word = words[rng.integers(len(words))][: size - at]
            sound[at : at + len(word)] = word / max(word.std(), 1e-6)
            place[at : at + len(word)] = True
            pause = rng.choice([rng.uniform(0.05, 0.2), rng.uniform(0.3, 1.5)])
            at += len(word) + int(RATE * pause)
        other = noise(rng, size, heard)
        sound += other / other.std() * 10 ** (-rng.uniform(0, 20) / 20)
        sound *= 10 ** (rng.uniform(-40, -20) / 20)
    return np.clip(sounds, -1, 1), spoken


def features(sounds):
    """What TFLite Micro's front end makes of clips, of shape `(clips, frames, 40)`."""
    front_end = keras_distill.data.MicroFeatures(RATE)
    return np.stack([front_end(sound) for sound in sounds])
