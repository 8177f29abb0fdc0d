"""`keras-distill inspect`: what is in a .tflite file, and which targets take it.

  keras-distill inspect student.tflite
  keras-distill inspect student.tflite --target=micro

Prints operators with shapes and types, weights, multiply-accumulates, bytes by part, quantization
and signatures. With --target the exit code is 2 where the target can't run the file.
"""

from collections.abc import Sequence
from typing import Any

from absl import flags as absl_flags
from rich.console import Console

from keras_distill import tflite


def main(
    flags: absl_flags.FlagValues, arguments: Sequence[str], console: Console
) -> dict[str, Any]:
    """Prints the contents of the file."""
    if len(arguments) != 1:
        raise ValueError("name one file: keras-distill inspect FILE.tflite.")
    found = tflite.inspect(arguments[0])
    console.print(str(found), markup=False, soft_wrap=True)
    if flags.target is not None:
        if flags.target not in found.refusals:
            raise ValueError(f"--target must be one of {', '.join(found.refusals)}.")
        reasons = found.refusals[flags.target]
        if reasons:
            raise ValueError(f"{flags.target} refuses {arguments[0]}: {'; '.join(reasons)}")
    return found.to_dict()
