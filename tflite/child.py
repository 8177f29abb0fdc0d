"""The parent's side of the child process, in which crashes do no harm."""

import atexit
import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np

#: How many of the last lines that a crashed child printed are shown.
_LINES = 5
#: What TensorFlow logs as it starts, whatever its log level.
_CHATTER = re.compile(r"[IW]\d{4} |WARNING: All log messages before")


class ConverterError(RuntimeError):
    """The converter refused the model. The message is the converter's own."""


class ConverterCrash(ConverterError):
    """The converter brought its process down."""


class _Child:
    """A child process that is started once, since its imports can take seconds."""

    def __init__(self):
        self.process: Any = None
        self._printed: Any = None

    def _start(self):
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore"}
        environment = {**os.environ, **quiet, "CUDA_VISIBLE_DEVICES": "-1"}
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(pathlib.Path(__file__).with_name("child_main.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._printed,
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
        self._printed.close()
        self.process = None

    def run(self, folder):
        """Has the request in `folder` done and returns the bytes of the file."""
        if self.process is not None and self.process.poll() is not None:
            self._close()
        if self.process is None:
            self._start()
        printed_before = self._bytes_printed()
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
            crash = ConverterCrash(
                f"{_ending(self.process.wait())}; {self._last_words(printed_before)}"
            )
            self._close()
            raise crash
        error = folder / "error.txt"
        if error.exists():
            raise ConverterError(error.read_text())
        return (folder / "model.tflite").read_bytes()

    def _bytes_printed(self):
        return os.fstat(self._printed.fileno()).st_size

    def _last_words(self, start):
        """The last lines that the child printed, from byte `start` on."""
        # The child shares the file's position, which must stay at the end.
        text = os.pread(self._printed.fileno(), self._bytes_printed() - start, start)
        lines = text.decode(errors="replace").splitlines()
        lines = [line.strip() for line in lines if line.strip() and not _CHATTER.match(line)]
        return "it last printed: " + " | ".join(lines[-_LINES:]) if lines else "it printed nothing"


def _ending(code):
    """How a process ended, from its exit status."""
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"ended by signal {-code}"


#: Files run in a child of their own: it never imports TensorFlow, so that a new one after a crash,
#: of which the search for the least arena provokes several, is cheap.
_CHILDREN = {"convert": _Child(), "run": _Child()}
for _child in _CHILDREN.values():
    atexit.register(_child.stop)


def run(
    folder: str | os.PathLike,
    work: str,
    calibration: Mapping[str, np.ndarray] | None = None,
    **request: Any,
) -> bytes:
    """Has the child process do work on a folder.

    Args:
        folder: Folder with what the work needs: a SavedModel in `saved_model`, or a TFLite file.
        work: `"convert"`, `"quantize"` or `"run"`.
        calibration: Arrays by input name, or `None`.
        **request: What the child needs to know, as JSON.

    Returns:
        The TFLite file that came of it.

    Raises:
        ConverterCrash: The child process died. The message has the last lines that it printed.
        ConverterError: The child raised.
    """
    folder = pathlib.Path(folder)
    for name in ("error.txt", "model.tflite", "calibration.npz"):
        (folder / name).unlink(missing_ok=True)
    if calibration is not None:
        np.savez(folder / "calibration.npz", **calibration)  # type: ignore[arg-type]
    (folder / "request.json").write_text(json.dumps({"work": work, **request}))
    return _CHILDREN["run" if work == "run" else "convert"].run(folder)
