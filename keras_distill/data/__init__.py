"""Data for training: sources by name, seeded augmentation, and batches for both models."""

from keras_distill.data.augment import (
    Augmentation,
    Mixer,
    random_noise,
    random_scale,
    random_shift,
    random_unknown,
)
from keras_distill.data.csv_tables import read_table
from keras_distill.data.features import log_mel
from keras_distill.data.log_mel_layer import LogMel
from keras_distill.data.micro_features import MicroFeatures
from keras_distill.data.pipeline import batches
from keras_distill.data.sources import load
from keras_distill.data.splits import Data

__all__ = [
    "Augmentation",
    "Data",
    "LogMel",
    "MicroFeatures",
    "Mixer",
    "batches",
    "load",
    "log_mel",
    "random_noise",
    "random_scale",
    "random_shift",
    "random_unknown",
    "read_table",
]
