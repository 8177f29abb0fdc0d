"""Precision per operator or layer, as a recipe for ai-edge-quantizer."""

import re
from collections.abc import Mapping, Sequence

from keras_distill.tflite import targets
from keras_distill.tflite.inspect import Operator

#: `(pattern, operator or None, weight bits, activation bits)`, for one rule of a recipe.
Rule = tuple[str, str | None, int | None, int | None]

#: Bits of weights and activations.
_BITS: dict[str, tuple[int | None, int | None]] = {
    "float32": (None, None),
    "int4": (4, 8),
    "int8": (8, 8),
    "int16": (8, 16),
}
#: Operators that have another name in ai-edge-quantizer.
_NAMES = {"TRANSPOSE_CONV": "CONV_2D_TRANSPOSE"}


def named(
    precision: Mapping[str, str],
    scopes: Mapping[str, set[str]],
    operators: Sequence[Operator],
    twins: Sequence[Operator],
) -> dict[str, list[Operator]]:
    """The operators that each key of `precision` names.

    Args:
        precision: Precision by layer or operator.
        scopes: Name scopes of each layer, by the layer's name.
        operators: Operators of the file.
        twins: The same operators, their tensors named as the converter names them.

    Returns:
        Lists of operators by key.

    Raises:
        ValueError: A key names none.
    """
    result = {}
    for key in precision:
        # A layer may have the name of an operator.
        inside = tuple(f"{scope}/" for scope in scopes.get(key, ()))
        result[key] = [
            op
            for op, twin in zip(operators, twins, strict=True)
            if (_is_inside(twin.layer, inside) if inside else op.name == key)
        ]
        if not result[key]:
            raise ValueError(
                f"`precision` names {key!r}, which has no operator of its own in the file: there "
                "is none, or the converter made it part of another layer's. The operators are "
                f"{sorted({op.name for op in operators})}."
            )
    return result


def _is_inside(tensor, scopes):
    return any(targets.without_call(part).startswith(scopes) for part in tensor.split(";"))


def build(
    quantization: str,
    io: Sequence[str],
    precision: Mapping[str, str],
    named: Mapping[str, list[Operator]],
    micro: bool = False,
) -> list[Rule]:
    """The rules of a recipe; later ones win.

    Args:
        quantization: `"int8"` or `"int4"`.
        io: Types of inputs and outputs.
        precision: Precision by layer or operator.
        named: The operators that its keys name.
        micro: For TFLite Micro, which has no dense layer of 4-bit weights.
    """
    rules: list[Rule] = [(".", None, 8, 8)]
    if quantization == "int4":
        # Only convolutions and dense layers have 4-bit kernels: the rest stays at 8.
        rules.append((".*", None, 4, 8))
        if micro:
            rules.append((".*$", "FULLY_CONNECTED", 8, 8))
    for name, value in precision.items():
        # ai-edge-quantizer knows an operator by the names of what it computes.
        scopes = ["".join(f"{t.name};" for t in op.outputs) for op in named[name]]
        # Named, an operator that lacks the precision is refused; in a layer it is left as it is.
        same = all(op.name == name for op in named[name])
        operator = _NAMES.get(name, name) if same else None
        rules.append((f"^({'|'.join(map(re.escape, scopes))})$", operator, *_BITS[value]))
    # Last, for an output has the name of what computes it.
    for name, dtype in zip(("INPUT", "OUTPUT"), io, strict=True):
        rules.append((f"(?#{name})", name, *_BITS[dtype]))
    return rules
