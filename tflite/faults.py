"""Which runtime of this host judges a file, and what runtimes are known to lack or get wrong."""

from keras_distill.tflite import runtimes
from keras_distill.tflite.inspect import Inspection

_INTEGERS = ("INT8", "INT16")


def known(found: Inspection, runtime: str) -> str | None:
    """The known fault of a runtime that a file meets, or `None`."""
    if runtime == "litert-reference":
        for op in found.operators:
            if op.name == "SUM" and op.inputs[0].dtype in _INTEGERS:
                return (
                    "LiteRT's reference kernel of SUM in integers loses its rescaling; LiteRT's "
                    "own kernel and TFLite Micro's don't"
                )
    return None


def _lacks(found, runtime):
    """Whether LiteRT's reference kernels lack an operator of a file."""
    return runtime == "litert-reference" and any(
        op.name == "ELU" or (op.name == "TILE" and op.inputs[0].dtype in _INTEGERS)
        for op in found.operators
    )


def judge_of(found: Inspection, runtime: str) -> str:
    """The runtime of this host by which a file is judged.

    It is the target's own. Where TFLite Micro isn't installed, LiteRT's reference kernels stand
    for it, and LiteRT's own where those lack an operator or are wrong.

    Args:
        found: What is in the file.
        runtime: The target's runtime, `"litert"` or `"micro"`.
    """
    name = runtimes.on_host(runtime)
    return "litert" if known(found, name) or _lacks(found, name) else name
