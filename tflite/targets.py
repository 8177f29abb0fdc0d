"""What each target accepts."""

import dataclasses
import difflib
import os
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_distill.tflite.inspect import Inspection

#: Built-in operators of TFLite Micro.
MICRO_OPERATORS = frozenset(
    """
    ABS ADD ADD_N ARG_MAX ARG_MIN ASSIGN_VARIABLE AVERAGE_POOL_2D BATCH_MATMUL
    BATCH_TO_SPACE_ND BROADCAST_ARGS BROADCAST_TO CALL_ONCE CAST CEIL CONCATENATION CONV_2D
    COS CUMSUM DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE DIV DYNAMIC_UPDATE_SLICE ELU
    EMBEDDING_LOOKUP EQUAL EXP EXPAND_DIMS FILL FLOOR FLOOR_DIV FLOOR_MOD FULLY_CONNECTED
    GATHER GATHER_ND GREATER GREATER_EQUAL HARD_SWISH IF L2_NORMALIZATION L2_POOL_2D
    LEAKY_RELU LESS LESS_EQUAL LOG LOGICAL_AND LOGICAL_NOT LOGICAL_OR LOGISTIC LOG_SOFTMAX
    MAXIMUM MAX_POOL_2D MEAN MINIMUM MIRROR_PAD MUL NEG NOT_EQUAL PACK PAD PADV2 PRELU
    QUANTIZE READ_VARIABLE REDUCE_ALL REDUCE_MAX REDUCE_MIN RELU RELU6 RESHAPE
    RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR REVERSE_V2 ROUND RSQRT SELECT_V2 SHAPE SIN SLICE
    SOFTMAX SPACE_TO_BATCH_ND SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUARE SQUARED_DIFFERENCE
    SQUEEZE STRIDED_SLICE SUB SUM SVDF TANH TRANSPOSE TRANSPOSE_CONV
    UNIDIRECTIONAL_SEQUENCE_LSTM UNPACK VAR_HANDLE WHILE ZEROS_LIKE
    """.split()  # noqa: SIM905
)

QUANTIZATIONS = ("float32", "float16", "dynamic", "int8", "int16x8", "int4")

#: Targets that `inspect` judges a file for.
SHOWN = ("android", "micro", "ethos-u55-128")

_ETHOS = (
    *(f"ethos-u55-{macs}" for macs in (32, 64, 128, 256)),
    *(f"ethos-u65-{macs}" for macs in (256, 512)),
    *(f"ethos-u85-{macs}" for macs in (128, 256, 512, 1024, 2048)),
)


#: The operator that a part of a file becomes for an NPU.
NPU_OPERATOR = "ethos-u"


@dataclasses.dataclass(frozen=True)
class EthosU:
    """An Ethos-U as a target, with the settings of the system that it is part of.

    The defaults are those that Vela documents for each family. They decide where weights and
    activations are, and so the estimates and the file that Vela compiles.

    Args:
        name: The target, such as `"ethos-u55-128"`.
        system_config: Vela's `--system-config`, such as `"Ethos_U55_Deep_Embedded"`.
        memory_mode: Vela's `--memory-mode`, such as `"Sram_Only"`.
        config: Path of a configuration file (`vela.ini`) that has other systems and modes than
            Vela's own.

    Example:

    >>> target = keras_distill.tflite.EthosU("ethos-u55-128", memory_mode="Sram_Only")
    >>> artifact = keras_distill.tflite.convert(student, target, "int8", calibration=x_train)
    """

    name: str
    system_config: str | None = None
    memory_mode: str | None = None
    config: str | os.PathLike | None = None


@dataclasses.dataclass(frozen=True)
class Target:
    """Where a file is to run.

    Attributes:
        name: Its name in `convert`.
        runtime: `"litert"` or `"micro"`.
        refused: Why it can't run a quantization, for each that it can't.
        accelerator: Its NPU, with the settings that Vela is given; or `None`.
    """

    name: str
    runtime: str
    refused: dict[str, str]
    accelerator: EthosU | None = None


_MICRO_REFUSED = {
    "float16": "TFLite Micro has no float16 DEQUANTIZE",
    "dynamic": "TFLite Micro does not run hybrid models (int8 weights with float activations)",
}
_ETHOS_REFUSED = {
    **_MICRO_REFUSED,
    "float32": "the NPU computes in int8 and int16 only",
    "int4": "Vela does not compile 4-bit weights",
}


def names() -> list[str]:
    """Names of all targets."""
    return ["android", "micro", *_ETHOS]


def get(target: str | EthosU) -> Target:
    """The target of a name, or a `ValueError` that lists the names."""
    settings = target if isinstance(target, EthosU) else EthosU(target)
    name = settings.name
    if settings != EthosU(name) and name not in _ETHOS:
        raise ValueError(
            f"`EthosU` must be given one of {list(_ETHOS)}."
            f"{suggestion(name, _ETHOS)} Received: {settings}"
        )
    if name == "android":
        return Target(name, "litert", {})
    if name == "micro":
        return Target(name, "micro", _MICRO_REFUSED)
    if name in _ETHOS:
        return Target(name, "micro", _ETHOS_REFUSED, accelerator=settings)
    raise ValueError(
        f"`target` must be one of {names()}.{suggestion(name, names())} Received: target={name!r}"
    )


def suggestion(value: Any, choices: Iterable[str]) -> str:
    """ " Did you mean 'x'?", where a choice is close to the value."""
    close = difflib.get_close_matches(str(value), list(choices), 1)
    return f" Did you mean {close[0]!r}?" if close else ""


def refusals(inspection: "Inspection", target: str) -> list[str]:
    """Why a target can't run a file: a line per reason, empty where it can.

    Args:
        inspection: The file's `Inspection`.
        target: Name of the target."""
    to = get(target)
    reasons: list[str] = []
    for op in inspection.operators:
        if op.custom and op.name != NPU_OPERATOR:
            reasons.append(f"operator {op.name} is not built in{_at(op)}")
        elif op.custom and not to.accelerator:
            reasons.append("Vela compiled the file for an Ethos-U, which this target isn't")
    if to.runtime == "micro":
        reasons += _micro_refusals(inspection)
    if to.accelerator:
        reasons += _ethos_refusals(inspection)
    return list(dict.fromkeys(reasons))


def _ethos_refusals(inspection):
    for op in inspection.operators:
        if op.name == NPU_OPERATOR:
            continue
        if op.macs != 0 and any(t.dtype == "FLOAT32" for t in op.outputs):
            yield _ETHOS_REFUSED["float32"]
        if any(t and t.dtype == "INT4" for t in op.inputs):
            yield _ETHOS_REFUSED["int4"]


#: What to do about operators that TFLite Micro lacks.
_FIXES = {
    "TILE": "repeat floats with counts that are constants, by `ops.repeat` or `ops.tile`, or look "
    "up constant places by `ops.take`",
}
_NO_EXP = (
    "compute it after the file, or take a layer that has an operator of its own, such as `softmax` "
    "or `sigmoid`"
)


def _micro_refusals(inspection):
    if len(inspection.signatures) > 1:
        yield f"{len(inspection.signatures)} signatures: TFLite Micro runs files with one"
    for op in inspection.operators:
        if not op.custom and op.name not in MICRO_OPERATORS:
            fix = f": {_FIXES[op.name]}" if op.name in _FIXES else ""
            yield f"TFLite Micro has no operator {op.name}{_at(op)}{fix}"
        elif op.name == "EXP" and op.outputs[0].dtype != "FLOAT32":
            yield f"TFLite Micro has no EXP of integers{_at(op)}: {_NO_EXP}"
        constant = [t for t in op.inputs if t and t.constant]
        if op.name == "DEQUANTIZE" and op.inputs[0].dtype == "FLOAT16":
            yield _MICRO_REFUSED["float16"]
        elif op.name == "FULLY_CONNECTED" and any(
            t.dtype == "INT4" and len(t.scales) > 1 for t in constant
        ):
            yield (
                "TFLite Micro has no FULLY_CONNECTED of 4-bit weights with a scale for each "
                f"output{_at(op)}"
            )
        elif _hybrid(op, constant):
            yield f"{_MICRO_REFUSED['dynamic']}: {op.name}{_at(op)}"


def _hybrid(op, constant):
    activations = [t for t in op.inputs if t and not t.constant]
    return (
        op.name not in ("DEQUANTIZE", "GATHER")
        and any(t.dtype in ("INT8", "INT4") and t.scales for t in constant)
        and any(t.dtype == "FLOAT32" for t in activations)
    )


def _at(op):
    return f" (at {layer_of(op.layer)!r})" if op.layer else ""


def layer_of(tensor: str) -> str:
    """The part of a tensor's name that names its layer."""
    name = tensor.split(";")[0]
    return without_call(name) or name


def without_call(tensor: str) -> str:
    """A tensor's name without the call of a function that TensorFlow may put before it."""
    return re.sub(r"^(StatefulPartitionedCall|PartitionedCall)[^/]*/?", "", tensor)
