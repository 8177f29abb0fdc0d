"""Data for training: sources by name, seeded augmentation, batches that both models see."""

from keras_distill.data.augment import (
    Augmentation,
    Mixer,
    random_noise,
    random_scale,
    random_shift,
    random_unknown,
)
from keras_distill.data.features import log_mel, windows
from keras_distill.data.pipeline import batches
from keras_distill.data.sources import Data, load, read_table

__all__ = [
    "Augmentation",
    "Data",
    "Mixer",
    "batches",
    "load",
    "log_mel",
    "random_noise",
    "random_scale",
    "random_shift",
    "random_unknown",
    "read_table",
    "windows",
]
