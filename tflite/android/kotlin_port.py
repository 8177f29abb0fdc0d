"""An input or output as the Kotlin class writes or reads it."""

import numpy as np
from keras_distill.tflite import names, runtimes

#: What LiteRT's Kotlin API calls each type, in arrays (`FloatArray`) and methods (`writeFloat`).
_KINDS = {"float32": "Float", "int32": "Int", "int64": "Long", "bool": "Boolean"}

#: What reads the elements of each array from a buffer.
_BUFFERS = {"FloatArray": "floats", "IntArray": "ints", "LongArray": "longs", "ByteArray": "bytes"}


class Port:
    """An input or output of the Kotlin class.

    Args:
        port: The port.
        normalization: `(mean, std)` that the class applies to what it is given.
        state: Whether a step hands it to the next.
    """

    def __init__(
        self, port: runtimes.Port, normalization: tuple[float, float], state: bool = False
    ):
        self.name = port.name
        self.identifier = names.kotlin_identifier(port.name)
        self.shape = [size or 1 for size in port.shape]
        self.size = int(np.prod(self.shape))
        self.dtype = port.dtype
        self.scale = port.scale
        self.zero_point = port.zero_point
        self.bytes = self.dtype in ("int8", "uint8")
        # Bytes that stand for themselves are taken as bytes.
        self.plain = self.bytes and (not self.scale or (self.scale, self.zero_point) == (1.0, 0))
        values = not self.plain and (self.dtype == "float32" or self.scale)
        self.normalization = normalization if values else (0.0, 1.0)
        self.encoding = "encode" if self.bytes and not self.plain else ""
        self.decoding = "decode" if self.bytes else ""
        self.argument = "ByteArray" if self.plain else f"{_KINDS.get(self.dtype, 'Float')}Array"
        self.state = state
        self.result = "FloatArray" if self.bytes else f"{_KINDS.get(self.dtype, 'Float')}Array"

    def check(self) -> None:
        """Refuses types that LiteRT's Kotlin API has no buffers for."""
        if not self.bytes and self.dtype not in _KINDS:
            raise ValueError(
                f"LiteRT's Kotlin API has no buffers of {self.dtype} (tensor {self.name!r}). "
                'Convert with `io="float32"`.'
            )

    def documented(self) -> str:
        """What the class's documentation says of it."""
        shape = " x ".join(map(str, self.shape))
        kind = "bytes" if self.plain else self.argument.removesuffix("Array").lower() + "s"
        mean, std = self.normalization
        note = "" if (mean, std) == (0.0, 1.0) else f", before (value - {mean:g}) / {std:g}"
        return f"{self.size} {kind} ({shape}){note}."

    def write(self) -> str:
        """The line that writes it to its buffer."""
        value = self.identifier
        if self.normalization != (0.0, 1.0):
            mean, std = (_kotlin_float(x) for x in self.normalization)
            value = f"FloatArray({self.size}) {{ ({value}[it] - {mean}) / {std} }}"
        if self.encoding:
            low, high = (-128, 127) if self.dtype == "int8" else (0, 255)
            source = "normalized" if value != self.identifier else value
            convert = (
                f"ByteArray({self.size}) {{ encode({source}[it], {_kotlin_float(self.scale)}, "
                f"{self.zero_point}, {low}, {high}) }}"
            )
            value = f"{value}.let {{ normalized -> {convert} }}" if source != value else convert
        method = "Int8" if self.bytes else _KINDS[self.dtype]
        name = names.kotlin_string(self.name)
        return f"      inputs.getValue({name}).write{method}({value})"

    def sized(self) -> str:
        """The line that checks how many elements it was given."""
        return f"    check({names.kotlin_string(self.name)}, {self.identifier}.size, {self.size})"

    def from_buffer(self) -> str | None:
        """The array that a `ByteBuffer` holds, `None` where there is no such buffer."""
        function = _BUFFERS.get(self.argument)
        return function and f"{function}({self.identifier})"

    def from_bitmap(self) -> str | None:
        """The array that a `Bitmap` holds, `None` where the input doesn't look like a picture."""
        if self.state or len(self.shape) != 4 or self.shape[0] != 1 or self.shape[3] not in (1, 3):
            return None
        _, height, width, channels = self.shape
        pixels = f"values(pixels(bitmap, {width}, {height}), {channels})"
        if self.plain and self.dtype == "uint8":
            return pixels
        return f"unsigned({pixels})" if self.argument == "FloatArray" else None

    def read(self) -> str:
        """The expression that reads it from its buffer."""
        buffer = f"outputs.getValue({names.kotlin_string(self.name)})"
        if not self.bytes:
            return f"{buffer}.read{_KINDS[self.dtype]}()"
        mask = 0 if self.dtype == "int8" else 255
        scale = _kotlin_float(self.scale or 1.0)
        return (
            f"{buffer}.readInt8().let {{ bytes -> FloatArray(bytes.size) "
            f"{{ decode(bytes[it], {scale}, {self.zero_point}, {mask}) }} }}"
        )

    def from_map(self) -> str:
        """The array of it in a map of floats."""
        values = f"values.getValue({names.kotlin_string(self.name)})"
        element = {"ByteArray": "toInt().toByte()", "IntArray": "toInt()", "LongArray": "toLong()"}
        if self.argument == "FloatArray":
            return values
        if self.argument == "BooleanArray":
            return f"{values}.let {{ a -> BooleanArray(a.size) {{ a[it] != 0f }} }}"
        return (
            f"{values}.let {{ a -> {self.argument}(a.size) {{ a[it].{element[self.argument]} }} }}"
        )

    def to_map(self) -> str:
        """Its entry of a map of floats."""
        value = f"result.{self.identifier}"
        if self.result == "BooleanArray":
            value = f"{value}.let {{ a -> FloatArray(a.size) {{ if (a[it]) 1f else 0f }} }}"
        elif self.result != "FloatArray":
            value = f"{value}.let {{ a -> FloatArray(a.size) {{ a[it].toFloat() }} }}"
        return f"{names.kotlin_string(self.name)} to {value}"

    def shaped(self) -> str:
        """Its entry of a map of shapes."""
        return f"{names.kotlin_string(self.name)} to listOf({', '.join(map(str, self.shape))})"


def _kotlin_float(value):
    """A Kotlin literal of exactly the float32 value."""
    return f"{np.float32(value):.9g}f"
