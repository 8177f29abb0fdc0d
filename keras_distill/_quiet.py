"""Silence while TensorFlow starts, for those who asked for it."""

import contextlib
import os
import sys
import tempfile

LEVEL = "TF_CPP_MIN_LOG_LEVEL"


@contextlib.contextmanager
def quiet_start():
    """Holds back what TensorFlow's libraries print while they load, where little is wanted.

    TensorFlow 2.21 prints a few lines before it reads the environment variable
    `TF_CPP_MIN_LOG_LEVEL`. Here they are held back if it is 1 or more, as it is for the command
    `keras-distill`, and printed after all if loading fails.
    """
    command = os.path.basename(sys.argv[0]) == "keras-distill"
    if command:
        os.environ.setdefault(LEVEL, "3")
    if os.environ.get(LEVEL, "0") == "0" or "tensorflow" in sys.modules:
        yield
        return
    with tempfile.TemporaryFile() as held:
        stderr = os.dup(2)
        waiting = command and os.isatty(stderr)
        if waiting:
            os.write(stderr, b"Starting TensorFlow ...")
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            if waiting:
                os.write(stderr, b"\r\x1b[K")
            os.dup2(stderr, 2)
            os.close(stderr)
