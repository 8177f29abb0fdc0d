"""What is said while a command runs: its own messages, without those of TensorFlow."""

import contextlib
import logging as python_logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from typing import Any

from absl import logging

PACKAGES = ("keras_distill", "keras_distill.tflite")


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Holds back what TensorFlow's libraries print while they load.

    TensorFlow 2.21 prints a few lines before it reads the environment variable
    `TF_CPP_MIN_LOG_LEVEL`. They are printed after all if loading fails, or if the variable is 0.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if os.environ["TF_CPP_MIN_LOG_LEVEL"] == "0" or "tensorflow" in sys.modules:
        yield
        return
    with tempfile.TemporaryFile() as held:
        stderr = os.dup(2)
        in_terminal = os.isatty(stderr)
        if in_terminal:
            os.write(stderr, b"Starting TensorFlow ...")
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            if in_terminal:
                os.write(stderr, b"\r\x1b[K")
            os.dup2(stderr, 2)
            os.close(stderr)


class Formatter(python_logging.Formatter):
    """A line for each message: the time, the level if it isn't information, and the message."""

    def format(self, record: python_logging.LogRecord) -> str:
        is_news = record.levelno == python_logging.INFO
        level = "" if is_news else f"{record.levelname.lower()}: "
        return f"{self.formatTime(record, self.datefmt)} {level}{record.getMessage()}"


def add_handler(handler: python_logging.Handler, datefmt: str = "%Y-%m-%d %H:%M:%S") -> None:
    """Hands the handler the command's own messages, and errors of whatever it uses.

    Args:
        handler: A handler of Python's `logging`.
        datefmt: How it writes the time.
    """
    handler.setFormatter(Formatter(datefmt=datefmt))
    handler.addFilter(
        lambda record: record.levelno >= python_logging.ERROR or _is_own(record.pathname)
    )
    python_logging.getLogger().addHandler(handler)


@contextlib.contextmanager
def to_stderr(verbosity: int) -> Iterator[None]:
    """Shows messages from `verbosity` up; with 1, those of all libraries.

    Args:
        verbosity: As absl counts: -1 for warnings, 0 for information, 1 for debugging.
    """
    logging.set_verbosity(max(verbosity, logging.INFO))  # Logs of runs keep information anyway.
    handler = python_logging.StreamHandler(sys.stderr)
    handler.setLevel(logging.converter.absl_to_standard(verbosity))
    shows_all = verbosity > logging.INFO
    if shows_all:
        handler.setFormatter(Formatter(datefmt="%H:%M:%S"))
        python_logging.getLogger().addHandler(handler)
    else:
        add_handler(handler, "%H:%M:%S")
    try:
        with contextlib.nullcontext() if shows_all else _only_own():
            yield
    finally:
        python_logging.getLogger().removeHandler(handler)


@contextlib.contextmanager
def _only_own() -> Iterator[None]:
    """Silences TensorFlow's logger, which has a handler of its own, and warnings of libraries."""
    tensorflow = python_logging.getLogger("tensorflow")
    level = tensorflow.level
    tensorflow.setLevel(python_logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("always", category=UserWarning, module="keras_distill")
            warnings.showwarning = _Warnings()
            yield
    finally:
        tensorflow.setLevel(level)


class _Warnings:
    """Shows the command's own warnings, each once."""

    def __init__(self) -> None:
        self.shown: set[str] = set()

    def __call__(
        self, message: Warning | str, category: type[Warning], filename: str, *_: Any, **__: Any
    ) -> None:
        if _is_own(filename) and str(message) not in self.shown:
            self.shown.add(str(message))
            logging.warning("%s", message)


def _is_own(path: str) -> bool:
    files = (getattr(sys.modules.get(name), "__file__", None) for name in PACKAGES)
    return any(file and path.startswith(os.path.dirname(file) + os.sep) for file in files)
