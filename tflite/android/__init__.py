"""What an app needs besides the file: metadata, labels, a Kotlin class, a sample app."""

import importlib.resources
import json
import re
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from keras_distill.tflite import flatbuffer, names
from keras_distill.tflite.android.metadata import TensorInfo, with_metadata
from keras_distill.tflite.android.npu import compile_for_npu
from keras_distill.tflite.streaming.decision import Decision

__all__ = ["compile_for_npu", "files"]

if TYPE_CHECKING:
    from keras_distill.tflite.artifact import Artifact


#: What LiteRT's Kotlin API calls each type, in arrays (`FloatArray`) and methods (`writeFloat`).
_KINDS = {"float32": "Float", "int32": "Int", "int64": "Long", "bool": "Boolean"}
_GPU, _NPU = ("float16", "float32"), ("int8", "int16x8")


#: The files of the sample app that are filled in.
_APP = (
    "settings.gradle.kts",
    "build.gradle.kts",
    "gradle.properties",
    "README.md",
    "app/build.gradle.kts",
    "app/src/main/AndroidManifest.xml",
    "app/src/main/res/values/strings.xml",
    "app/src/main/kotlin/MainActivity.kt",
)


def files(
    artifact: "Artifact",
    name: str,
    package: str,
    description: str,
    normalization: tuple[float, float],
    variants: Sequence["Artifact"],
    decision: Decision | None = None,
) -> dict[str, str | bytes]:
    """Files of the kit, by relative path.

    Args:
        artifact: An `Artifact` for `"android"`.
        name: What files and class are named after; made safe.
        package: Kotlin package.
        description: What the student does, in a sentence.
        normalization: `(mean, std)`: the student takes `(value - mean) / std`.
        variants: Further artifacts of the same student, in other quantizations.
        decision: When the app acts on scores, or `None`.

    Raises:
        ValueError: A package, normalization or variant is wrong.
    """
    _check(package, normalization)
    for other in variants:
        _check_variant(artifact, other)
    kit = _Kit(artifact, name, package, description, normalization, variants)
    _warn_of_variables(kit)
    labels = {"labels.txt": "".join(f"{label}\n" for label in kit.label_lines)}
    labels = labels if artifact.labels else {}
    models = {
        asset: with_metadata(
            one.tflite, kit.base, description, kit.input_infos(), kit.output_infos(), labels
        )
        for asset, one in kit.assets.items()
    }
    sources = {f"{kit.kotlin_class}.kt": kit.filled("templates", "Student.kt")}
    if decision is not None:
        if "Decision.kt" in sources:
            raise ValueError("`name` must differ from that of the decision. Received: 'Decision'")
        sources["Decision.kt"] = kit.filled("templates", "Decision.kt", decision.constants())
    vectors = json.dumps(kit.vectors()) + "\n"
    main = "app/app/src/main"
    assets = {**models, **labels, "test_vectors.json": vectors}
    return {
        **models,
        **labels,
        **sources,
        "dependencies.gradle.kts": kit.filled("templates", "app.gradle.kts"),
        **{f"app/{path}": kit.filled("app", path) for path in _APP},
        **{f"{main}/kotlin/{path}": source for path, source in sources.items()},
        **{f"{main}/assets/{path}": content for path, content in assets.items()},
    }


def _check(package, normalization):
    if not re.fullmatch(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+", package):
        raise ValueError(
            '`package` must be a Kotlin package of at least two parts, such as "com.example.app". '
            f"Received: package={package!r}"
        )
    if normalization[1] == 0:
        raise ValueError(f"`normalization` must have a std other than 0. Received: {normalization}")


def _check_variant(artifact, other):
    def ports(one):
        return [(p.name, list(p.shape), p.dtype) for p in (*one.ports.inputs, *one.ports.outputs)]

    if other.target != "android":
        raise ValueError(f"A variant must be for android. Received: {other!r}")
    for one in (artifact, other):
        if "quantization" not in one.report:
            raise ValueError(
                "Variants are told apart by their quantization, which isn't known of files given "
                f"to `load`: give artifacts that `convert` made. Received: {one!r}"
            )
    if other.report["quantization"] == artifact.report["quantization"]:
        raise ValueError(
            "Variants must differ in their quantization. Received: "
            f"{other.report['quantization']!r} twice"
        )
    if ports(other) != ports(artifact):
        raise ValueError(
            "Variants must have the same inputs and outputs: convert them with the same `io`. "
            f"Received: {ports(other)} beside {ports(artifact)}"
        )


def _warn_of_variables(kit):
    """Warns of files that LiteRT's `CompiledModel`, which the class uses, doesn't load."""
    held = [asset for asset, one in kit.assets.items() if flatbuffer.has_variables(one.tflite)]
    if held:
        warnings.warn(
            f"`CompiledModel` of LiteRT 2.3, by which {kit.kotlin_class}.kt and the sample app run "
            f"files, can't load {', '.join(held)}: it takes no variables, in which a fused LSTM "
            "keeps its state. Convert with `recurrent='step'`, use a GRU, or run the file by "
            "LiteRT's Interpreter.",
            stacklevel=4,  # Who called `save`.
        )


def _lists(array, count):
    """A row per test vector, which holds a whole batch."""
    return np.asarray(array).reshape(count, -1).astype("float64").round(7).tolist()


class _Kit:
    """The values that are filled into the templates."""

    def __init__(self, artifact, name, package, description, normalization, variants):
        self.base = names.cpp_identifier(name)
        self.kotlin_class = names.kotlin_class(self.base)
        self._artifact = artifact
        normalization = tuple(float(x) for x in normalization)
        # State isn't measured by the app: it is what the file returned for the step before.
        self._states = [i for i, _ in artifact.ports.states]
        self._inputs = [
            _Port(p, (0.0, 1.0) if i in self._states else normalization)
            for i, p in enumerate(artifact.ports.inputs)
        ]
        self._outputs = [_Port(p, (0.0, 1.0)) for p in artifact.ports.outputs]
        self.assets = {f"{self.base}.tflite": artifact} | {
            f"{self.base}_{other.report['quantization']}.tflite": other for other in variants
        }
        for other in variants:
            if other not in self._loaded().values():
                raise ValueError(
                    f"A variant of quantization {other.report['quantization']!r} would never be "
                    f"loaded: beside the first file, the app loads one of {list(_GPU)} on the GPU "
                    f"and one of {list(_NPU)} on the NPU. Leave it out."
                )
        for port in (*self._inputs, *self._outputs):
            port.check()
        self.label_lines = [re.sub(r"\s+", " ", label) for label in artifact.labels or []]
        self._values = self._fill(package, description)

    def _fill(self, package, description):
        sentence = " ".join(description.replace("*/", "* /").split())
        return {
            "NAME": self.base,
            "CLASS": self.kotlin_class,
            "PACKAGE": package,
            "DESCRIPTION": sentence,
            "RESULT": ", ".join(f"val {p.identifier}: {p.result}" for p in self._outputs),
            "PARAMETERS": "\n".join(f"   * @param {p.name} {p.documented()}" for p in self._inputs),
            "ARGUMENTS": ", ".join(f"{p.identifier}: {p.argument}" for p in self._inputs),
            "WRITES": "\n".join(p.write() for p in self._inputs),
            "READS": "\n".join(f"      {p.identifier} = {p.read()}," for p in self._outputs),
            "FROM_MAP": "\n".join(f"      {p.from_map()}," for p in self._inputs),
            "TO_MAP": "\n".join(f"      {p.to_map()}," for p in self._outputs),
            "INPUT_SHAPES": ", ".join(p.shaped() for p in self._inputs),
            "OUTPUT_SHAPES": ", ".join(p.shaped() for p in self._outputs),
            "LABELS": ", ".join(
                names.kotlin_string(label) for label in self._artifact.labels or []
            ),
            "ASSET": names.kotlin_string(f"{self.base}.tflite"),
            "ASSETS": "\n".join(self._choices()),
            "HELPERS": "".join(
                helper
                for kind, helper in _HELPERS.items()
                if any(kind in (p.encoding, p.decoding) for p in (*self._inputs, *self._outputs))
            ).rstrip(),
        }

    def _loaded(self):
        """The artifact for the GPU and the one for the NPU, where there are some."""
        found = {}
        for accelerator, quantizations in (("GPU", _GPU), ("NPU", _NPU)):
            for one in self.assets.values():
                if one.report.get("quantization") in quantizations:
                    found.setdefault(accelerator, one)
        return found

    def _choices(self):
        """The asset for each accelerator that has one of its own."""
        for accelerator, artifact in self._loaded().items():
            [asset] = [name for name, one in self.assets.items() if one is artifact]
            yield f"        Accelerator.{accelerator} -> {names.kotlin_string(asset)}"

    def filled(self, folder, path, more=()):
        """A template with every `@NAME@` replaced."""
        text = (importlib.resources.files(__package__) / folder / path).read_text()
        values = {**self._values, **dict(more)}
        return re.sub(r"@([A-Z_]+)@", lambda match: str(values.get(match[1], match[0])), text)

    def vectors(self):
        """A few inputs of the class, before normalization, and the outputs that they must give."""
        count = self._artifact.VECTORS
        given, expected = self._artifact.example_values()
        for port in self._inputs:
            mean, std = port.normalization
            given[port.name] = given[port.name].astype("float64") * std + mean
        return {
            "count": count,
            "source": self._artifact.examples.source,
            "inputs": {name: _lists(array, count) for name, array in given.items()},
            "outputs": {name: _lists(array, count) for name, array in expected.items()},
        }

    def input_infos(self):
        return [
            TensorInfo(
                p.name,
                p.documented(),
                tuple(p.shape),
                normalization=None if i in self._states else p.normalization,
            )
            for i, p in enumerate(self._inputs)
        ]

    def output_infos(self):
        size = len(self._artifact.labels or [])
        return [
            TensorInfo(
                p.name,
                f"{p.size} values, {p.dtype}.",
                tuple(p.shape),
                labels="labels.txt" if size and p.shape[-1] == size else None,
            )
            for p in self._outputs
        ]


_HELPERS = {
    "encode": """
    private fun encode(value: Float, scale: Float, zeroPoint: Int, low: Int, high: Int): Byte =
      (Math.rint((value / scale).toDouble()).toInt() + zeroPoint).coerceIn(low, high).toByte()
""",
    "decode": """
    private fun decode(byte: Byte, scale: Float, zeroPoint: Int, mask: Int): Float =
      ((if (mask == 0) byte.toInt() else byte.toInt() and mask) - zeroPoint) * scale
""",
}


class _Port:
    """An input or output of the Kotlin class."""

    def __init__(self, port, normalization):
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
        self.result = "FloatArray" if self.bytes else f"{_KINDS.get(self.dtype, 'Float')}Array"

    def check(self):
        """Refuses types that LiteRT's Kotlin API has no buffers for."""
        if not self.bytes and self.dtype not in _KINDS:
            raise ValueError(
                f"LiteRT's Kotlin API has no buffers of {self.dtype} (tensor {self.name!r}). "
                'Convert with `io="float32"`.'
            )

    def documented(self):
        shape = " x ".join(map(str, self.shape))
        kind = "bytes" if self.plain else self.argument.removesuffix("Array").lower() + "s"
        mean, std = self.normalization
        note = "" if (mean, std) == (0.0, 1.0) else f", before (value - {mean:g}) / {std:g}"
        return f"{self.size} {kind} ({shape}){note}."

    def write(self):
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
        return (
            f"    check({name}, {self.identifier}.size, {self.size})\n"
            f"    inputs.getValue({name}).write{method}({value})"
        )

    def read(self):
        buffer = f"outputs.getValue({names.kotlin_string(self.name)})"
        if not self.bytes:
            return f"{buffer}.read{_KINDS[self.dtype]}()"
        mask = 0 if self.dtype == "int8" else 255
        scale = _kotlin_float(self.scale or 1.0)
        return (
            f"{buffer}.readInt8().let {{ bytes -> FloatArray(bytes.size) "
            f"{{ decode(bytes[it], {scale}, {self.zero_point}, {mask}) }} }}"
        )

    def from_map(self):
        values = f"values.getValue({names.kotlin_string(self.name)})"
        element = {"ByteArray": "toInt().toByte()", "IntArray": "toInt()", "LongArray": "toLong()"}
        if self.argument == "FloatArray":
            return values
        if self.argument == "BooleanArray":
            return f"{values}.let {{ a -> BooleanArray(a.size) {{ a[it] != 0f }} }}"
        return (
            f"{values}.let {{ a -> {self.argument}(a.size) {{ a[it].{element[self.argument]} }} }}"
        )

    def to_map(self):
        value = f"result.{self.identifier}"
        if self.result == "BooleanArray":
            value = f"{value}.let {{ a -> FloatArray(a.size) {{ if (a[it]) 1f else 0f }} }}"
        elif self.result != "FloatArray":
            value = f"{value}.let {{ a -> FloatArray(a.size) {{ a[it].toFloat() }} }}"
        return f"{names.kotlin_string(self.name)} to {value}"

    def shaped(self):
        return f"{names.kotlin_string(self.name)} to listOf({', '.join(map(str, self.shape))})"


def _kotlin_float(value):
    """A Kotlin literal of exactly the float32 value."""
    return f"{np.float32(value):.9g}f"
