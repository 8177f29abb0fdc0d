"""Precision per operator or layer, as a recipe for ai-edge-quantizer."""

import re
from collections.abc import Mapping, Sequence

from keras_distill.tflite import targets
from keras_distill.tflite.inspect import Operator

#: `(pattern, operator or None, weight bits, activation bits, whether weights have one scale instead
#: of one for each output)`, for one rule of a recipe.
Rule = tuple[str, str | None, int | None, int | None, bool]

#: Bits of weights and activations.
_BITS: dict[str, tuple[int | None, int | None]] = {
    "float32": (None, None),
    "int4": (4, 8),
    "int8": (8, 8),
    "int16": (8, 16),
}
_DENSE = "FULLY_CONNECTED"
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
        micro: For TFLite Micro, whose dense layers take one scale for all their 4-bit weights:
            they have 8 bits unless `precision` names them.
    """
    rules: list[Rule] = [(".", None, 8, 8, False)]
    if quantization == "int4":
        # Only convolutions and dense layers have 4-bit kernels: the rest stays at 8.
        rules.append((".*", None, 4, 8, False))
        if micro:
            rules.append((".*$", _DENSE, 8, 8, False))
    for name, value in precision.items():
        # ai-edge-quantizer knows an operator by the names of what it computes.
        scopes = ["".join(f"{t.name};" for t in op.outputs) for op in named[name]]
        # Named, an operator that lacks the precision is refused; in a layer it is left as it is.
        same = all(op.name == name for op in named[name])
        operator = _NAMES.get(name, name) if same else None
        pattern = "|".join(map(re.escape, scopes))
        rules.append((f"^({pattern})$", operator, *_BITS[value], False))
        if micro and value == "int4" and any(op.name == _DENSE for op in named[name]):
            # The pattern is written otherwise, so that this rule is a later one, which wins.
            rules.append((f"^(?:{pattern})$", _DENSE, *_BITS[value], True))
    # Last, for an output has the name of what computes it.
    for name, dtype in zip(("INPUT", "OUTPUT"), io, strict=True):
        rules.append((f"(?#{name})", name, *_BITS[dtype], False))
    return rules
