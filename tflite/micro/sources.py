"""C++ sources from templates: ports, numbers and rows of them."""

import importlib.resources
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from keras_distill.tflite import names, runtimes

_TYPES = {
    "int8": "std::int8_t",
    "uint8": "std::uint8_t",
    "int16": "std::int16_t",
    "int32": "std::int32_t",
    "int64": "std::int64_t",
    "float32": "float",
    "bool": "bool",
}


class Port:
    """An input or output as the C++ sources name it.

    Args:
        port: The port.
        index: Its place among the inputs or outputs.
        kind: `"Input"` or `"Output"`.
    """

    def __init__(self, port: runtimes.Port, index: int, kind: str):
        self.index = index
        self.shape = [size or 1 for size in port.shape]
        self.size = int(np.prod(self.shape))
        self.dtype = port.dtype
        self.type = _TYPES[port.dtype]
        self.scale = port.scale
        self.zero_point = port.zero_point
        self.struct = f"{names.camel_case(port.name)}{kind}"
        self.buffer = f"state_{index}"

    def declaration(self) -> str:
        """What a program must know of it at compile time."""
        shape = " x ".join(map(str, self.shape))
        return (
            f"struct {self.struct} {{  // {shape}\n"
            f"  using Type = {self.type};\n"
            f"  static constexpr int kIndex = {self.index};\n"
            f"  static constexpr std::size_t kSize = {self.size};\n"
            f"  static constexpr float kScale = {number(self.scale)};\n"
            f"  static constexpr int kZeroPoint = {self.zero_point};\n"
            "};"
        )


def filled(template: str, values: Mapping[str, Any], package: str = __package__) -> str:
    """A template of a package with every `@NAME@` replaced."""
    text = (importlib.resources.files(package) / "templates" / template).read_text()
    text = re.sub(r"@([A-Z_]+)@", lambda match: str(values[match[1]]), text)
    return re.sub(r"\n{3,}", "\n\n", text)


def rows(values: Sequence[str], width: int = 12) -> str:
    """Elements of an array, some in each line."""
    lines = [", ".join(values[i : i + width]) for i in range(0, len(values), width)]
    return "\n".join(f"    {line}," for line in lines)


def number(value: float) -> str:
    """A C++ literal of exactly the float32 value."""
    text = f"{np.float32(value):.9g}"
    return f"{text if any(c in text for c in '.en') else text + '.0'}f"


def literal(value: float, dtype: str) -> str:
    """A C++ literal of a type of NumPy's name."""
    return number(value) if dtype == "float32" else str(int(value))


def encoded(value: str, port: Port, name: str) -> str:
    """An expression for a value in the type of a port of the namespace `name`."""
    if port.scale:
        return f"{name}::Quantize<{name}::{port.struct}>({value})"
    return f"static_cast<{name}::{port.struct}::Type>({value})"


def decoded(value: str, port: Port, name: str) -> str:
    """An expression for the value that an integer of a port stands for."""
    return f"{name}::Dequantize<{name}::{port.struct}>({value})" if port.scale else value
