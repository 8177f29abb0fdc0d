"""`keras-distill prove`: a kit's stored vectors on the board that runs it, over a serial port.

  keras-distill prove firmware --serial=/dev/ttyUSB0

The folder is one that `export --target=micro` wrote, and the board runs its NAME_serve.h. The
stored inputs are sent, the model runs on the board, and its outputs are compared with those of this
host. Differences, the time of an inference and the arena that the board uses are printed and kept
in the folder's report.json and report.md. Unless the verdict is "pass", the exit code is 2.
"""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

from absl import flags as absl_flags
from rich.console import Console

from keras_distill import _files
from keras_distill.checks import positive
from keras_distill.tflite.micro import board, serial_port
from keras_distill.tflite.report import Report


def main(
    flags: absl_flags.FlagValues, arguments: Sequence[str], console: Console
) -> dict[str, Any]:
    """Runs the vectors and completes the report."""
    if len(arguments) != 1:
        raise ValueError("name one folder: keras-distill prove FOLDER --serial=PORT.")
    if flags.serial is None:
        raise ValueError("name the board's port: --serial=PORT, such as /dev/ttyUSB0.")
    folder = pathlib.Path(arguments[0])
    # Wrong files are told before a port is opened, which restarts boards.
    board.stored(folder)
    path = folder / "report.json"
    report = Report(board.read_json(path) if path.is_file() else {})
    timeout = positive("--timeout", flags.timeout)
    with serial_port.SerialPort(flags.serial, flags.baud) as port:
        found = board.prove(folder, port, timeout)
    console.print(str(Report({"board": found})), markup=False, soft_wrap=True)
    report["board"] = found
    _files.write_text(path, json.dumps(report, indent=2) + "\n")
    _files.write_text(folder / "report.md", f"{report}\n")
    if found["verdict"] != "pass":
        raise ValueError(f"the board's outputs aren't those stored. See {folder / 'report.md'}.")
    return found
