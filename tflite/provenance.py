"""What made a file, by which it can be made again."""

import hashlib
import importlib.metadata
import re

import keras
import tensorflow as tf
from keras_distill.tflite import ethos, runtimes
from keras_distill.tflite.targets import Target

from keras_distill._version import __version__

#: Where TFLite Micro's sources are.
TFLITE_MICRO = "https://github.com/tensorflow/tflite-micro"


def sha256(tflite: bytes) -> str:
    """A file's SHA-256 in hexadecimal."""
    return hashlib.sha256(tflite).hexdigest()


def versions(target: Target) -> dict[str, str]:
    """Versions of what makes a file for a target and runs it on this host.

    Args:
        target: The target.
    """
    # TensorFlow's and Keras' packages may have other names, such as `keras-nightly`.
    found = {
        "keras_distill": __version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
    }
    if target.runtime == "micro" and runtimes.micro_available():
        found["tflite_micro"], found["tflite_micro_commit"] = _tflite_micro()
    if target.accelerator is not None and ethos.available():
        found["vela"] = importlib.metadata.version("ethos-u-vela")
    return found


def _tflite_micro():
    """Version of TFLite Micro's package, and the commit of its sources that it is built from."""
    metadata = importlib.metadata.metadata("tflite-micro")
    commit = re.search(
        r"built from commit\s+\[([0-9a-f]{7,40})\]", str(metadata.json.get("description", ""))
    )
    return metadata["Version"], commit[1] if commit else "unknown"
