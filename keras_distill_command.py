"""Entry point of the command `keras-distill`.

It stands beside the package because importing anything inside it imports TensorFlow, and what
TensorFlow prints meanwhile can only be held back from outside.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


def run() -> None:
    """Runs the command with the arguments of the process, and exits."""
    with held_back_messages():
        from keras_distill import cli
    sys.exit(cli.main(sys.argv[1:]))


@contextlib.contextmanager
def held_back_messages() -> Iterator[None]:
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
