"""Streams of speech by espeak-ng's voices and of recorded digits, for examples that listen."""

import ctypes

import espeakng_loader
import numpy as np
import scipy.signal
from noisy_words import FRAME, RATE, noise

ACCENTS = ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-029")
_VOICES = """
    m1 m2 m3 m4 m5 m6 m7 m8 f1 f2 f3 f4 f5 Alex Alicia Andrea Andy Annie Denis Diogo Gene Henrique
    Hugo Jacky Lee Marco Mario Michael Mike Nguyen Storm Tweaky adam anika antonio aunty belinda
    benjamin boris caleb david ed edward grandma grandpa gustave iven john klatt klatt2 linda
    marcelo max michel miguel norbert pablo paul pedro quincy rob robert sandro shelby steph travis
    victor zac
"""
# Words that sound like "computer", and others.
_WORDS = """
    commuter compute pewter compete committee company complete couple cooper shooter future neuter
    comfort community tutor scooter the a people of water never under butter table music window
    number paper open letter morning weather kitchen yellow seven river turn on off light please
    what time is it play stop next call mother father today tomorrow really because together they
    were going to make some dinner after that and we should have a look at all these pictures from
    summer before winter comes again with you my brother doctor minister picture later better ever
"""
VOICES, WORDS = _VOICES.split(), _WORDS.split()


class Espeak:
    """espeak-ng, by the library that `espeakng-loader` has."""

    def __init__(self):
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        path = str(espeakng_loader.get_data_path()).encode()
        self._rate, self._parts = self._library.espeak_Initialize(2, 0, path, 0), []
        samples = ctypes.POINTER(ctypes.c_short)
        kind = ctypes.CFUNCTYPE(ctypes.c_int, samples, ctypes.c_int, ctypes.c_void_p)
        self._callback = kind(self._take)
        self._library.espeak_SetSynthCallback(self._callback)

    def _take(self, samples, count, _):
        if count > 0:
            self._parts.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def say(self, rng, text, voice):
        """A text at the front end's rate, spoken by a voice at some speed and pitch."""
        self._parts.clear()
        name = f"{ACCENTS[rng.integers(len(ACCENTS))]}+{voice}"
        self._library.espeak_SetVoiceByName(name.encode())
        for parameter, low, high in ((1, 130, 210), (3, 30, 70)):
            self._library.espeak_SetParameter(parameter, int(rng.integers(low, high)), 0)
        data = text.encode()
        self._library.espeak_Synth(data, len(data) + 1, 0, 0, 0, 1, None, None)
        sound = np.concatenate(self._parts).astype("float32")
        loud = np.flatnonzero(np.abs(sound) > 0.02 * np.abs(sound).max())
        sound = sound[loud[0] : loud[-1] + 1]
        return scipy.signal.resample_poly(sound, RATE // 50, self._rate // 50)


def stream(rng, espeak, voices, digits, length, wake, heard=True):
    """A stream of sentences, digits and a wake word between pauses, in noise 5 to 25 dB lower.

    Args:
        rng: NumPy's generator.
        espeak: The `Espeak` that speaks.
        voices: Names of its voices.
        digits: Recorded words, arrays of samples.
        length: Frames of 10 ms.
        wake: The wake word.
        heard: Whether the noise is of the kinds for training.

    Returns:
        `(sound, events)`: samples from -1 to 1, and `(start, end, 1)` of each wake word in seconds.
    """
    sound, events = np.zeros((length + 2) * FRAME, "float32"), []
    at = int(rng.integers(RATE // 2, RATE))
    while True:
        kind, voice = rng.choice(3, p=(0.15, 0.2, 0.65)), rng.choice(voices)
        if kind == 1:
            part = digits[rng.integers(len(digits))]
        else:
            words = [wake] if kind == 0 else rng.choice(WORDS, rng.integers(2, 9))
            part = espeak.say(rng, " ".join(words), voice)
        if at + len(part) > len(sound) - RATE:
            break
        sound[at : at + len(part)] = part / part.std() * 10 ** (rng.uniform(-6, 0) / 20)
        if kind == 0:
            events.append((at / RATE, (at + len(part)) / RATE, 1))
        at += len(part) + int(RATE * rng.uniform(0.1, 0.6))
    other = noise(rng, len(sound), heard)
    sound += other / other.std() * 10 ** (-rng.uniform(5, 25) / 20)
    return np.clip(sound * 10 ** (rng.uniform(-35, -20) / 20), -1, 1), events
