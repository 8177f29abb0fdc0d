"""What an app needs besides the file: metadata, labels, a Kotlin class, a sample app."""

import importlib.resources
import json
import re
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from keras_distill.tflite import flatbuffer, kit_arguments, names
from keras_distill.tflite.android import kotlin_port, pictures
from keras_distill.tflite.android.listening import Heard
from keras_distill.tflite.android.metadata import TensorInfo, with_metadata
from keras_distill.tflite.android.npu import compile_for_npu, save_ai_pack
from keras_distill.tflite.kit_sources import Sources

__all__ = ["Heard", "compile_for_npu", "files", "save_ai_pack"]

if TYPE_CHECKING:
    from keras_distill.tflite.artifact import Artifact


_GPU, _NPU = ("float16", "float32"), ("int8", "int16x8")


#: The files of the sample app that are filled in.
_APP = (
    "settings.gradle.kts",
    "build.gradle.kts",
    "gradle.properties",
    "README.md",
    "student/build.gradle.kts",
    "student/consumer-rules.pro",
    "student/src/main/AndroidManifest.xml",
    "student/src/test/kotlin/InputsTest.kt",
    "student/src/test/kotlin/PlacementTest.kt",
    "student/src/test/kotlin/StudentTest.kt",
    "app/build.gradle.kts",
    "app/src/main/AndroidManifest.xml",
    "app/src/main/res/values/strings.xml",
    "app/src/main/kotlin/MainActivity.kt",
)

#: The sources that the class needs, the same in each kit.
_SOURCES = ("Inputs.kt", "Placement.kt", "Session.kt")


def files(
    artifact: "Artifact",
    name: str,
    package: str,
    description: str,
    normalization: tuple[float, float],
    variants: Sequence["Artifact"],
    heard: Heard,
    more: Sources | None = None,
) -> dict[str, str | bytes]:
    """Files of the kit, by relative path.

    Args:
        artifact: An `Artifact` for `"android"`.
        name: What files and class are named after; made safe.
        package: Kotlin package.
        description: What the student does, in a sentence.
        normalization: `(mean, std)`: the student takes `(value - mean) / std`.
        variants: Further artifacts of the same student, in other quantizations.
        heard: What makes features of sounds, and when the app acts on scores.
        more: What makes further sources, or `None`.

    Raises:
        ValueError: A package, normalization or variant is wrong.
    """
    kit_arguments.check_package(package)
    _check(normalization)
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
    sources |= {path: kit.filled("templates", path) for path in _SOURCES}
    sources |= {
        path: kit.filled("templates", path, values)
        for path, values in heard.templates(artifact, kit.kotlin_class).items()
    }
    sources |= {} if more is None else dict(more.kotlin(package, kit.kotlin_class, artifact))
    sources |= kit.class_map()
    # What draws is there: the app shows it.
    draws = getattr(more, "draws", False) or "ClassMap.kt" in sources
    sources |= kit.letterbox() if draws else {}
    library, main = "app/student/src/main", "app/app/src/main"
    of_app = heard.of_app(artifact)
    show = {"SHOW": "show(it, column); " if draws else ""}
    vectors = json.dumps(kit.vectors()) + "\n"
    return {
        **models,
        **labels,
        **sources,
        "dependencies.gradle.kts": kit.filled("templates", "app.gradle.kts"),
        **{f"app/{path}": kit.filled("app", path, {**of_app, **show}) for path in _APP},
        **(kit.app_pictures(main) if draws else {}),
        **{f"{library}/kotlin/{path}": source for path, source in sources.items()},
        **{f"{library}/assets/{path}": content for path, content in {**models, **labels}.items()},
        f"{main}/assets/test_vectors.json": vectors,
    }


def _check(normalization):
    pair = np.asarray(normalization)
    if (
        pair.shape != (2,)
        or pair.dtype.kind not in "iuf"
        or not np.isfinite(pair).all()
        or not pair[1]
    ):
        raise ValueError(
            "`normalization` must be (mean, std), finite, with a std other than 0. "
            f"Received: normalization={normalization!r}"
        )


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
            kotlin_port.Port(p, (0.0, 1.0), state=True)
            if i in self._states
            else kotlin_port.Port(p, normalization)
            for i, p in enumerate(artifact.ports.inputs)
        ]
        self._outputs = [kotlin_port.Port(p, (0.0, 1.0)) for p in artifact.ports.outputs]
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
            "NAMES": ", ".join(p.identifier for p in self._inputs),
            "SIZES": "\n".join(p.sized() for p in self._inputs),
            "WRITES": "\n".join(p.write() for p in self._inputs),
            "READS": "\n".join(f"        {p.identifier} = {p.read()}," for p in self._outputs),
            **_overloads(self._inputs),
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

    def class_map(self):
        """`ClassMap.kt`, where the student gives the classes of a picture's pixels."""
        values = pictures.class_map(self._inputs, self._outputs, self.label_lines)
        return (
            {}
            if values is None
            else {"ClassMap.kt": self.filled("templates", "ClassMap.kt", values)}
        )

    def letterbox(self):
        """`Letterbox.kt`, by which pictures become inputs."""
        _, height, width, _ = self._inputs[0].shape
        values = {"WIDTH": width, "HEIGHT": height}
        return {"Letterbox.kt": self.filled("templates", "Letterbox.kt", values)}

    def app_pictures(self, main):
        """The sample app's picture, and what draws on it."""
        source = "app/src/main/kotlin/Pictures.kt"
        picture = pictures.sample_picture(self._inputs[0], self._given()[0])
        return {f"app/{source}": self.filled("app", source), f"{main}/assets/sample.png": picture}

    def _given(self):
        """Test vectors of the inputs, before normalization, and the outputs that they must give."""
        given, expected = self._artifact.example_values()
        for port in self._inputs:
            mean, std = port.normalization
            given[port.name] = given[port.name].astype("float64") * std + mean
        return given, expected

    def vectors(self):
        """A few inputs of the class, and the outputs that they must give."""
        count = self._artifact.VECTORS
        given, expected = self._given()
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


def _overloads(inputs):
    """What `run` takes besides arrays, and the imports of the class."""
    imports = ["android.content.Context", "java.util.concurrent.CompletableFuture"]
    imports += [f"com.google.ai.edge.litert.{name}" for name in ("Accelerator", "TensorBuffer")]
    overloads = ""
    buffers = [port.from_buffer() for port in inputs]
    if all(buffers):
        imports.append("java.nio.ByteBuffer")
        given = ", ".join(f"{port.identifier}: ByteBuffer" for port in inputs)
        overloads += f"""
  /** Runs one inference on the elements that buffers hold from their positions on. */
  fun run({given}): Result = run({", ".join(buffers)})
"""
    picture = inputs[0].from_bitmap() if len(inputs) == 1 else None
    if picture is not None:
        imports.append("android.graphics.Bitmap")
        size = f"{inputs[0].shape[2]} x {inputs[0].shape[1]}"
        overloads += f"""
  /**
   * Runs one inference on the values 0 to 255 of a picture, which is scaled to {size}. Pictures of
   * the configuration HARDWARE can't be read.
   */
  fun run(bitmap: Bitmap): Result = run({picture})
"""
    return {
        "IMPORTS": "\n".join(f"import {name}" for name in sorted(imports)),
        "OVERLOADS": overloads,
    }


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
