"""What is said while a command runs: its own messages, without those of TensorFlow."""

import contextlib
import logging as python_logging
import os
import sys
import warnings

from absl import logging

PACKAGES = ("keras_distill", "keras_distill.tflite")


def add_handler(handler):
    """Hands the handler the command's own messages, and errors of whatever it uses."""
    handler.setFormatter(logging.PythonFormatter())
    handler.addFilter(
        lambda record: record.levelno >= python_logging.ERROR or _is_own(record.pathname)
    )
    python_logging.getLogger().addHandler(handler)


@contextlib.contextmanager
def to_stderr(verbosity):
    """Shows messages from `verbosity` up; with 1, those of all libraries.

    Args:
        verbosity: As absl counts: -1 for warnings, 0 for information, 1 for debugging.
    """
    logging.set_verbosity(max(verbosity, logging.INFO))  # Logs of runs keep information anyway.
    if verbosity > logging.INFO:
        logging.use_absl_handler()
        yield
        return
    handler = python_logging.StreamHandler(sys.stderr)
    handler.setLevel(logging.converter.absl_to_standard(verbosity))
    add_handler(handler)
    # It has a handler of its own.
    tensorflow = python_logging.getLogger("tensorflow")
    level = tensorflow.level
    tensorflow.setLevel(python_logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            yield
    finally:
        python_logging.getLogger().removeHandler(handler)
        tensorflow.setLevel(level)


def _warn(message, category, filename, *_):
    if _is_own(filename):
        logging.warning("%s", message)


def _is_own(path):
    files = (getattr(sys.modules.get(name), "__file__", None) for name in PACKAGES)
    return any(file and path.startswith(os.path.dirname(file) + os.sep) for file in files)
