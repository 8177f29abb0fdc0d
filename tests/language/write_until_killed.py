"""Run by `test_generation.py`: writes targets and is killed once a shard is whole.

Argument: the folder with the model and its inputs, in which `killed` is written.
"""

import os
import pathlib
import signal
import sys

import keras
import numpy as np

from keras_distill.language import write_targets
from keras_distill.teachers.records import ShardWriter

folder = pathlib.Path(sys.argv[1])
finish = ShardWriter.finish


def finish_and_die(self):
    finish(self)
    os.kill(os.getpid(), signal.SIGKILL)


ShardWriter.finish = finish_and_die
write_targets(
    keras.models.load_model(folder / "model.keras"),
    {"source": np.load(folder / "sources.npy")},
    folder / "killed",
    target="target",
    start=1,
    end=2,
    length=6,
    beams=3,
    batch_size=4,
    verbose=0,
)
