"""Precision per operator or layer, as a recipe for ai-edge-quantizer."""

import re

from keras_distill.tflite import forms, targets

#: Bits of weights and activations.
_BITS = {"float32": (None, None), "int4": (4, 8), "int8": (8, 8), "int16": (8, 16)}
_NAMES = {"TRANSPOSE_CONV": "CONV_2D_TRANSPOSE"}


def check(student, precision):
    """Refuses a `precision` that names no layer or operator, or no known precision."""
    known = {layer.name for layer in forms.all_layers(student)}
    for name, value in precision.items():
        if value not in _BITS:
            raise ValueError(
                f"`precision` must be one of {list(_BITS)} for each layer or operator. "
                f"Received: precision[{name!r}]={value!r}"
            )
        if name not in known and not is_operator(name):
            raise ValueError(
                f"`precision` names {name!r}, which is neither a layer of the student nor an "
                f'operator such as "CONV_2D".{targets.suggestion(name, known)}'
            )


def is_operator(name) -> bool:
    """Whether a key of `precision` names an operator and not a layer."""
    return re.fullmatch(r"[A-Z][A-Z0-9_]*", name) is not None


def layer_pattern(layer) -> str:
    """Pattern of the names of the tensors that a layer computes."""
    return rf"(^|/|;){re.escape(layer)}(_\d+)?(/|;|:|$)"


def build(quantization, io, precision, micro=False) -> list:
    """Rules `(pattern, operator or None, weight bits, activation bits)`; later ones win.

    Args:
        quantization: `"int8"` or `"int4"`.
        io: Types of inputs and outputs.
        precision: Precision by layer or operator.
        micro: For TFLite Micro, which has no dense layer of 4-bit weights.
    """
    rules: list = [(".", None, 8, 8)]
    if quantization == "int4":
        # Only convolutions and dense layers have 4-bit kernels: the rest stays at 8.
        rules.append((".*", None, 4, 8))
        if micro:
            rules.append((".*$", "FULLY_CONNECTED", 8, 8))
    for name, value in precision.items():
        if is_operator(name):
            rules.append((f"(?#{name})", _NAMES.get(name, name), *_BITS[value]))
        else:
            rules.append((layer_pattern(name), None, *_BITS[value]))
    for name, dtype in zip(("INPUT", "OUTPUT"), io, strict=True):
        if dtype == "float32":
            rules.append((f"(?#{name})", name, None, None))
    return rules
