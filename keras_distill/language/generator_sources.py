"""The Kotlin class of an app that writes with a file of `export`."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_distill.language.text_sources import filled

_CONTINUES = """
    /** Goes on from a prompt: its tokens, and those after it up to [END] or `length` in all. */
    fun write(prompt: IntArray, length: Int = LENGTH): IntArray {
        start()
        return goneOn(prompt, length)
    }
"""
_ENCODES = """
    /** Forgets all tokens, and reads the encoder's inputs, by name: an IntArray or FloatArray. */
    fun encode(inputs: Map<String, Any>) {
        start()
        val buffers = inputs.mapValues { filled(it.value) }
        val given = buffers.mapValues { it.value.capacity() }
        require(given == INPUTS) { "the inputs take $INPUTS bytes, not $given" }
        run("encode", buffers, ENCODED.associateWith { kept.getValue(it) })
    }
"""
_ANSWERS = """
    /** Writes what the encoder's inputs ask for: [START], and tokens up to [END]. */
    fun write(inputs: Map<String, Any>, length: Int = LENGTH): IntArray {
        encode(inputs)
        return goneOn(intArrayOf(START), length)
    }
"""


def kotlin(report: Mapping[str, Any], file: str, package: str) -> str:
    """`Generator.kt`.

    Args:
        report: What is known of the file; see `Generator.report`.
        file: Name of the file.
        package: Kotlin package.
    """
    from keras_distill.tflite import names

    parts = {
        name: {side: {port["name"]: port for port in ports} for side, ports in part.items()}
        for name, part in report["signatures"].items()
    }
    takes, gives = parts["decode"]["inputs"], parts["decode"]["outputs"]
    lines = []
    for name, port in takes.items():
        if name in ("tokens", "position"):
            continue
        after = next((a for a in (f"{name}_new", f"{name}_out") if a in gives), "")
        token = _bytes(gives[after]) if after.endswith("_new") else 0
        kept = [names.kotlin_string(name), _bytes(port), names.kotlin_string(after), token]
        lines.append(f"            Kept({', '.join(map(str, [*kept, port['zero_point']]))}),\n")
    prefill = parts["prefill"]["inputs"]["tokens"]["shape"][1] if "prefill" in parts else 1
    constants = ""
    if "encode" in parts:
        sizes = {name: _bytes(port) for name, port in parts["encode"]["inputs"].items()}
        inputs = ", ".join(f"{names.kotlin_string(n)} to {size}" for n, size in sizes.items())
        encoded = ", ".join(map(names.kotlin_string, parts["encode"]["outputs"]))
        constants = (
            f"        const val START = {report['start']}\n"
            f"        private val INPUTS = mapOf({inputs})\n"
            f"        private val ENCODED = listOf({encoded})\n"
        )
    values = {
        "PACKAGE": package,
        "FILE": file,
        "SCORES_BYTES": _bytes(gives["logits"]),
        "ENCODE": _ENCODES if constants else "",
        "WRITE": _ANSWERS if constants else _CONTINUES,
        "LENGTH": report["length"],
        "END": report["end"],
        "CONSTANTS": constants,
        "PREFILL": prefill,
        "KEPT": "".join(lines),
    }
    return filled("Generator.kt", values)


def _bytes(port: Mapping[str, Any]) -> int:
    return int(np.prod(port["shape"])) * np.dtype(port["dtype"]).itemsize
