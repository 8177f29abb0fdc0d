"""A `Generator.kt`, run on the JVM: its signatures are run by LiteRT in this process."""

import io
import json
import os
import shutil
import struct
import subprocess

import numpy as np
import pytest
from keras_distill.tflite import signatures

#: Asks this process to run signatures through its streams; then prints what was written.
MAIN = """
import @PACKAGE@.Generator
import java.io.DataInputStream
import java.io.DataOutputStream
import java.nio.ByteBuffer

fun main() {
    val input = DataInputStream(System.`in`.buffered())
    val output = DataOutputStream(System.out.buffered())
    val generator = Generator { name, inputs, outputs ->
        output.writeUTF(name)
        output.writeInt(inputs.size)
        for ((key, value) in inputs) {
            val bytes = ByteArray((value as ByteBuffer).remaining()).also { value.get(it) }
            output.writeUTF(key)
            output.writeInt(bytes.size)
            output.write(bytes)
        }
        output.writeInt(outputs.size)
        outputs.keys.forEach { output.writeUTF(it) }
        output.flush()
        for (value in outputs.values) {
            (value as ByteBuffer).put(ByteArray(value.remaining()).also { input.readFully(it) })
        }
    }
    val rows = List(input.readInt()) { IntArray(input.readInt()) { input.readInt() } }
    for (given in rows) {
        val written = generator.write(@GIVEN@)
        output.writeUTF("")
        output.writeInt(written.size)
        written.forEach { output.writeInt(it) }
        output.flush()
    }
}
"""


def kotlinc():
    """A Kotlin compiler, which needs a Java runtime."""
    compiler = os.environ.get("KOTLINC") or shutil.which("kotlinc")
    if not compiler or not shutil.which("java"):
        pytest.skip("name a Kotlin compiler in KOTLINC, and install a Java runtime")
    return compiler


def compiled(folder, files):
    """A program of Kotlin files."""
    program = folder / "program.jar"
    command = [kotlinc(), "-Werror", *map(str, files), "-include-runtime", "-d", str(program)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return program


def written(folder, inputs, source=None):
    """What the `Generator.kt` of a folder writes with its `student.tflite`.

    Args:
        folder: The folder.
        inputs: Prompts, or the input `source` of an encoder: rows of tokens, padded with 0.
        source: Name of the encoder's input.

    Returns:
        A list of tokens for each row, and the names of the signatures that were run.
    """
    text = (folder / "Generator.kt").read_text()
    package = text.split("\n", 1)[0].removeprefix("package ")
    given = "given" if source is None else f'mapOf("{source}" to given)'
    main = folder / "Main.kt"
    main.write_text(MAIN.replace("@PACKAGE@", package).replace("@GIVEN@", given))
    program = compiled(folder, [main, *sorted(set(folder.glob("*.kt")) - {main})])
    file = signatures.Signatures((folder / "student.tflite").read_bytes())
    report = json.loads((folder / "student.json").read_text())
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(["java", "-cp", str(program), "MainKt"], **pipes) as java:
        rows = [row if source else row[row != 0] for row in np.asarray(inputs)]
        java.stdin.write(struct.pack(">i", len(rows)))
        for row in rows:
            java.stdin.write(struct.pack(f">{1 + len(row)}i", len(row), *row))
        java.stdin.flush()
        found, names = [], set()
        while len(found) < len(rows):
            name = _text(java.stdout)
            if name:
                names.add(name)
                ports = {port["name"]: port for port in report["signatures"][name]["inputs"]}
                java.stdin.write(_run(file, name, ports, java.stdout))
                java.stdin.flush()
            else:
                count = _integer(java.stdout)
                found.append([_integer(java.stdout) for _ in range(count)])
        java.stdin.close()
        assert java.wait() == 0
    return found, names


def _run(file, name, ports, stream):
    arrays = {}
    for _ in range(_integer(stream)):
        port = ports[_text(stream)]
        data = np.frombuffer(_bytes(stream, _integer(stream)), port["dtype"])
        arrays[port["name"]] = data.reshape(port["shape"])
    wanted = [_text(stream) for _ in range(_integer(stream))]
    values = {port: file.inputs[name][port].dequantize(x) for port, x in arrays.items()}
    outputs = file.run(name, values)
    codes = (file.outputs[name][port].quantize(outputs[port]) for port in wanted)
    return b"".join(each.tobytes() for each in codes)


def _bytes(stream: io.BufferedReader, count):
    data = stream.read(count)
    assert len(data) == count, "the program ended early"
    return data


def _integer(stream):
    return struct.unpack(">i", _bytes(stream, 4))[0]


def _text(stream):
    return _bytes(stream, struct.unpack(">H", _bytes(stream, 2))[0]).decode()
