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
        val ports = INPUTS.getValue("encode")
        require(inputs.keys == ports.keys) { "the inputs are ${ports.keys}, not ${inputs.keys}" }
        val given = inputs.mapValues { (name, values) ->
            val buffer = when {
                name in INTEGERS && values is IntArray -> filled(values)
                name !in INTEGERS && values is FloatArray -> ports.getValue(name).filled(values)
                name in INTEGERS -> throw IllegalArgumentException("$name takes an IntArray")
                else -> throw IllegalArgumentException("$name takes a FloatArray")
            }
            val size = buffer.capacity()
            val bytes = ports.getValue(name).bytes
            require(size == bytes) { "$name takes $bytes bytes, not $size" }
            buffer
        }
        val results = OUTPUTS.getValue("encode")
        for ((name, output) in run("encode", given)) keep(name, results.getValue(name), output)
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
    parts = report["signatures"]
    prefill = {port["name"]: port["shape"] for port in parts.get("prefill", {}).get("inputs", [])}
    encodes = "encode" in parts
    values = {
        "PACKAGE": package,
        "FILE": file,
        "ENCODE": _ENCODES if encodes else "",
        "WRITE": _ANSWERS if encodes else _CONTINUES,
        "LENGTH": report["length"],
        "END": report["end"],
        "CONSTANTS": _of_encoder(report) if encodes else "",
        "PREFILL": prefill["tokens"][1] if prefill else 1,
        "INPUTS": _maps(parts, "inputs"),
        "OUTPUTS": _maps(parts, "outputs"),
    }
    return filled("Generator.kt", values)


def _of_encoder(report: Mapping[str, Any]) -> str:
    """The constants of an encoder and decoder."""
    from keras_distill.tflite import names

    ports = report["signatures"]["encode"]["inputs"]
    integers = [names.kotlin_string(x["name"]) for x in ports if x["dtype"] == "int32"]
    return (
        f"        const val START = {report['start']}\n"
        f"        private val INTEGERS = setOf<String>({', '.join(integers)})\n"
    )


def _maps(signatures: Mapping[str, Any], side: str) -> str:
    """The entries of a map of ports by the names of signatures."""
    from keras_distill.tflite import names

    lines = []
    for signature, part in signatures.items():
        lines.append(f"            {names.kotlin_string(signature)} to mapOf(\n")
        for port in part[side]:
            name, scale = names.kotlin_string(port["name"]), float(port["scale"])
            size = int(np.prod(port["shape"])) * np.dtype(port["dtype"]).itemsize
            lines.append(
                f"                {name} to Port({size}, {scale!r}, {port['zero_point']}),\n"
            )
        lines.append("            ),\n")
    return "".join(lines)
