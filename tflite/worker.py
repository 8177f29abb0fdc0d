"""The parent's side of the child process in which crashes do no harm."""

import atexit
import contextlib
import json
import os
import pathlib
import subprocess
import sys

import numpy as np


class ConverterError(RuntimeError):
    """The converter refused the model. The message is the converter's own."""


class ConverterCrash(ConverterError):
    """The converter brought its process down."""


class _Worker:
    """A child process that is started once, since importing TensorFlow takes seconds."""

    def __init__(self):
        self.process = None

    def _start(self):
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(pathlib.Path(__file__).with_name("_worker.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
            # Ctrl-C is for the parent, which ends the child where it waits for it.
            start_new_session=True,
        )

    def stop(self):
        if self.process is not None:
            self.process.stdin.close()
            self.process.wait()
            self._close()

    def _close(self):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()
        self.process = None

    def run(self, folder):
        """Has the request in `folder` done and returns the bytes of the file."""
        if self.process is not None and self.process.poll() is not None:
            self._close()
        if self.process is None:
            self._start()
        answer = ""
        try:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.write(f"{folder}\n")
                self.process.stdin.flush()
                answer = self.process.stdout.readline()
        except BaseException:
            # Its answer would be taken for that to the next request.
            self.process.kill()
            self.process.wait()
            self._close()
            raise
        if not answer:
            code = self.process.wait()
            self._close()
            raise ConverterCrash(f"exit status {code}")
        error = folder / "error.txt"
        if error.exists():
            raise ConverterError(error.read_text())
        return (folder / "model.tflite").read_bytes()


_WORKER = _Worker()
atexit.register(_WORKER.stop)


def run(folder, work, calibration=None, **request) -> bytes:
    """Has the child process do work on a folder.

    Args:
        folder: Folder with what the work needs: a SavedModel in `saved_model`, or a TFLite file.
        work: `"convert"`, `"quantize"` or `"run"`.
        calibration: Arrays by input name, or `None`.
        **request: What the child needs to know, as JSON.

    Returns:
        The TFLite file that came of it.

    Raises:
        ConverterCrash: The child process died.
        ConverterError: The child raised.
    """
    folder = pathlib.Path(folder)
    for name in ("error.txt", "model.tflite", "calibration.npz"):
        (folder / name).unlink(missing_ok=True)
    if calibration is not None:
        np.savez(folder / "calibration.npz", **calibration)
    (folder / "request.json").write_text(json.dumps({"work": work, **request}))
    return _WORKER.run(folder)
