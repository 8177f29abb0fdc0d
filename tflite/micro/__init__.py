"""What firmware needs besides the file: C++ sources, a test of stored vectors, a sketch."""

import textwrap
from typing import TYPE_CHECKING

import numpy as np
from keras_distill.tflite import names
from keras_distill.tflite.front_ends import FrontEnd
from keras_distill.tflite.inspect import inspect
from keras_distill.tflite.kit_sources import Sources
from keras_distill.tflite.micro import board, library, readme, sources, stream
from keras_distill.tflite.streaming.decision import Decision
from keras_distill.tflite.targets import NPU_OPERATOR

if TYPE_CHECKING:
    from keras_distill.tflite.artifact import Artifact


#: Operators whose methods in `MicroMutableOpResolver` aren't their names in camel case.
_METHODS = {
    "BATCH_MATMUL": "AddBatchMatMul",
    "CUMSUM": "AddCumSum",
    "PADV2": "AddPadV2",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "AddUnidirectionalSequenceLSTM",
    NPU_OPERATOR: "AddEthosU",
}


def files(
    artifact: "Artifact",
    name: str = "student",
    decision: Decision | None = None,
    recording: np.ndarray | None = None,
    front_end: FrontEnd | None = None,
    more: Sources | None = None,
) -> dict[str, str | bytes]:
    """Files of the kit, by relative path.

    Args:
        artifact: An `Artifact` for microcontrollers.
        name: What files and namespace are named after; made safe for C++.
        decision: When the firmware acts on scores, or `None`.
        recording: Frames, or samples for the front end, that a program plays through stream and
            decision, or `None`.
        front_end: What computes frames from a sound, or `None`.
        more: What makes further sources, or `None`.

    Raises:
        ValueError: The recording doesn't fit the artifact, or has no decision.
    """
    kit = _Kit(artifact, names.cpp_identifier(name), (decision, recording, front_end))
    streamed = stream.files(artifact, kit.name, decision, recording, front_end)
    main = {
        f"{kit.name}_model.h": kit.filled("model.h"),
        f"{kit.name}_model.cc": kit.filled("model.cc"),
        f"{kit.name}.h": kit.filled("student.h"),
        f"{kit.name}_serve.h": kit.filled("serve.h"),
        f"{kit.name}_profile.h": kit.filled("profile.h"),
    }
    further = {} if more is None else dict(more.cpp(kit.name, artifact))
    main |= {path: text for path, text in further.items() if path.endswith(".h")}
    examples = {
        f"{kit.name}/{kit.name}.ino": kit.filled("sketch.ino"),
        f"{kit.name}_serve/{kit.name}_serve.ino": kit.filled("serve.ino"),
    }
    if f"{kit.name}_listener.h" in streamed:
        main |= {path: streamed[path] for path in stream.listening(kit.name)}
        examples |= stream.examples(kit.name)
    return {
        **main,
        f"{kit.name}_test_vectors.h": kit.filled("test_vectors.h"),
        f"{kit.name}_test_vectors.cc": kit.filled("test_vectors.cc"),
        "main.cc": kit.filled("main.cc"),
        "serve_main.cc": kit.filled("serve_main.cc"),
        "profile_main.cc": kit.filled("profile_main.cc"),
        "test_vectors.json": kit.stored,
        **streamed,
        **further,
        "CMakeLists.txt": kit.filled("CMakeLists.txt"),
        "Makefile": kit.filled("Makefile"),
        "README.md": kit.filled("README.md"),
        **library.files(kit.name, main, examples, kit.sentence),
    }


def resolver_method(operator: str) -> str:
    """The method of `MicroMutableOpResolver` that adds an operator."""
    if operator in _METHODS:
        return _METHODS[operator]
    words = operator.split("_")
    # Words that begin with a digit ("2D") stay as they are.
    return "Add" + "".join(w if w[0].isdigit() else w.capitalize() for w in words)


class _Kit:
    """The values that are filled into the templates."""

    def __init__(self, artifact, name, streaming):
        self.name = name
        self.sentence = readme.sentence(artifact, name)
        self._inputs = [sources.Port(p, i, "Input") for i, p in enumerate(artifact.ports.inputs)]
        self._outputs = [sources.Port(p, i, "Output") for i, p in enumerate(artifact.ports.outputs)]
        tflite = artifact.compiled or artifact.tflite
        found = inspect(tflite)
        operators = sorted(set(found.counts))
        labels = artifact.labels or []
        self._values = {
            "NAME": name,
            "GUARD": name.upper(),
            "BYTES": len(tflite),
            "ROWS": sources.rows([f"0x{byte:02x}" for byte in tflite]),
            **_arena(artifact),
            "DENSE": _dense(found),
            "PORTS": "\n".join(p.declaration() for p in (*self._inputs, *self._outputs)),
            "LABEL_COUNT": len(labels),
            "LABELS": _labels(labels),
            "INPUT_BYTES": _bytes(self._inputs),
            "OUTPUT_BYTES": _bytes(self._outputs),
            "FIRST_INPUT": self._inputs[0].struct,
            "FIRST_OUTPUT": self._outputs[0].struct,
            "OPERATOR_COUNT": len(operators),
            "EVENTS": len(found.operators),
            "BLANKS": "\n".join(self._blank(p) for p in self._inputs),
            "OPERATORS": "\n".join(
                f"  TF_LITE_ENSURE_STATUS(resolver.{resolver_method(op)}());" for op in operators
            ),
            **readme.values(artifact, name, *streaming),
            **self._test(artifact),
            **self._sketch(artifact.ports.states, operators, labels),
        }

    def _test(self, artifact):
        """What the program that runs the test vectors needs."""
        given, expected = artifact.test_vectors()
        self.stored = board.vectors((given, expected), artifact.ports, artifact.examples.source)
        return {
            "COUNT": len(given[0]),
            "SOURCE": artifact.examples.source,
            **_outcome(artifact),
            "DECLARATIONS": "\n".join(self._vectors(given, expected, declare=True)),
            "DEFINITIONS": "\n\n".join(self._vectors(given, expected)),
            "FEEDS": "\n".join(
                f"    Feed<{self.name}::{p.struct}>"
                f"(interpreter, {self.name}::k{p.struct}Vectors, i);"
                for p in self._inputs
            ),
            "CHECKS": "\n".join(map(self._check, self._outputs)),
        }

    def _sketch(self, states, operators, labels):
        """What the Arduino sketch needs."""
        name, output = self.name, self._outputs[0]
        pairs = [(self._inputs[i], self._outputs[o]) for i, o in states]
        kept = [port for port, _ in pairs]
        filled = [
            (
                p,
                f"{p.buffer}[i]"
                if p in kept
                else sources.encoded(f"Sensor({p.index}, i)", p, name),
            )
            for p in self._inputs
        ]
        return {
            "STATES": _states(pairs, name),
            "ZEROS": "\n".join(
                _each(p, name, p.buffer, f"{name}::{p.struct}::kZeroPoint") for p in kept
            ),
            "FILLS": "\n".join(
                _each(p, name, f"Input<{name}::{p.struct}>()", value) for p, value in filled
            ),
            "CARRIES": "\n".join(_carried(*pair, name) for pair in pairs),
            "DECODE": sources.decoded("output[i]", output, name),
            "RESET": "  // Forgets the state that recurrent operators keep between invocations.\n"
            "  interpreter->Reset();"
            if "UNIDIRECTIONAL_SEQUENCE_LSTM" in operators
            else "",
            "PRINT_LABEL": f'    Serial.print({name}::kLabels[i]);\n    Serial.print(": ");'
            if len(labels) == output.size
            else "",
        }

    def filled(self, template):
        """A template with every `@NAME@` replaced."""
        return sources.filled(template, self._values)

    def _vectors(self, given, expected, declare=False):
        for port, arrays in (
            *zip(self._inputs, given, strict=True),
            *zip(self._outputs, expected, strict=True),
        ):
            head = f"const {port.type} k{port.struct}Vectors[kVectorCount * {port.struct}::kSize]"
            if declare:
                yield f"extern {head};"
            else:
                values = [sources.literal(v, port.dtype) for v in np.concatenate(arrays, axis=None)]
                yield f"{head} = {{\n{sources.rows(values)}\n}};"

    def _blank(self, port):
        """Clears an input."""
        struct = f"{self.name}::{port.struct}"
        return (
            f"    std::memset(interpreter.input({struct}::kIndex)->data.raw, 0,\n"
            f"                {struct}::kSize * sizeof({struct}::Type));"
        )

    def _check(self, port):
        tolerance = "1e-4" if port.dtype == "float32" else f"{self.name.upper()}_TOLERANCE"
        return (
            f"    same = same && Distance<{self.name}::{port.struct}>(\n"
            f"                       interpreter, {self.name}::k{port.struct}Vectors, i) <= "
            f"{tolerance};"
        )


def _bytes(ports):
    """How many bytes each port takes."""
    return ", ".join(f"sizeof({p.struct}::Type) * {p.struct}::kSize" for p in ports)


def _arena(artifact):
    """The arena's size, with where it comes from as a comment."""
    measured, npu = artifact.report.get("arena"), artifact.report.get("npu")
    if measured is None:
        size = 32 * 1024
        text = (
            "// Not measured: TFLite Micro's interpreter was not installed where this kit was made."
        )
    else:
        size = measured["reserved"]
        parts = ", ".join(f"{part} {n}" for part, n in measured["parts"].items())
        sentence = (
            f"Measured on a 64-bit host: {measured['to_start']} bytes to start, of which "
            f"{measured['total']} are kept; activations {measured['head']}, {parts}. The rest is "
            "margin. 32-bit processors need less."
        )
        text = textwrap.fill(sentence, 80, initial_indent="// ", subsequent_indent="// ")
    if npu is not None and measured is None:
        size += -(-npu["sram_bytes"] // 16) * 16
    if npu is not None:
        text += (
            "\n// Activations are in the NPU's share, by Vela's estimate: "
            f"{npu['sram_bytes']} bytes."
        )
    return {"ARENA": text, "ARENA_SIZE": size}


def _dense(found):
    """A check that TFLite Micro knows a scale for each unit of dense layers that have them."""
    weights = [op.inputs[1] for op in found.operators if op.name == "FULLY_CONNECTED"]
    return sources.filled("dense.inc", {}) if any(len(w.scales) > 1 for w in weights) else ""


def _outcome(artifact):
    """What the test program says where all outputs are as stored."""
    if not artifact.examples.prove:
        return {"PASS": "RAN", "VECTORS": "made-up inputs, which prove only that the file runs"}
    return {"PASS": "PASS", "VECTORS": "test vectors"}


def _labels(labels):
    if not labels:
        return ""
    rows = "\n".join(f"    {names.c_string(label)}," for label in labels)
    return f"constexpr const char* kLabels[kLabelCount] = {{\n{rows}\n}};"


def _each(port, name, array, value):
    """A loop over the elements of a port."""
    size = f"{name}::{port.struct}::kSize"
    return f"  for (size_t i = 0; i < {size}; ++i) {{\n    {array}[i] = {value};\n  }}"


def _states(states, name):
    """The arrays that keep the state: the arena's inputs are overwritten while the file runs."""
    if not states:
        return ""
    return "// The state that each step hands to the next. It starts at 0.\n" + "\n".join(
        f"{name}::{p.struct}::Type {p.buffer}[{name}::{p.struct}::kSize];" for p, _ in states
    )


def _carried(given, result, name):
    """Keeps a state that a step returned, in the quantization of the input that it is for."""
    value = f"Output<{name}::{result.struct}>()[i]"
    if (given.scale, given.zero_point) != (result.scale, result.zero_point):
        value = sources.encoded(sources.decoded(value, result, name), given, name)
    return _each(given, name, given.buffer, value)
