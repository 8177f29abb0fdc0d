"""`keras-distill profile`: the time of each operator, from the log of a board or a phone.

  keras-distill profile log.txt
  keras-distill profile log.txt --file=student.tflite

Reads what TFLite Micro's MicroProfiler or a kit's profile_main.cc printed, or the run order of
LiteRT's `benchmark_model --enable_op_profiling=true`. With --file, each operator of that file is
shown with its layer and its multiply-accumulates.
"""

from collections.abc import Sequence
from typing import Any

from absl import flags as absl_flags
from rich.console import Console

from keras_distill import tflite
from keras_distill.tflite import profiles


def main(
    flags: absl_flags.FlagValues, arguments: Sequence[str], console: Console
) -> dict[str, Any]:
    """Prints the table."""
    if len(arguments) != 1:
        raise ValueError("name one log: keras-distill profile LOG [--file=FILE.tflite].")
    profile = profiles.load(arguments[0])
    found = None if flags.file is None else tflite.inspect(flags.file)
    text = str(profile) if found is None else profiles.shown(found, profile)
    console.print(text, markup=False, soft_wrap=True)
    if found is None:
        pairs = [(event.operator, event.time) for event in profile.events]
    else:
        pairs = list(zip([op.name for op in found.operators], profile.of(found), strict=True))
    rows = [{"operator": name, "time": time} for name, time in pairs]
    return {"unit": profile.unit, "operators": rows}
