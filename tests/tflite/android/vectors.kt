// Runs stored vectors through a kit's class: what it hands to the file, and what it makes of outputs.
package vectors

import com.google.ai.edge.litert.Device
import java.io.File

private class Line(val role: String, val port: String, type: String, numbers: List<String>) {
  val array: Any =
    when (type) {
      "float32" -> numbers.map { it.toFloat() }.toFloatArray()
      "int32" -> numbers.map { it.toInt() }.toIntArray()
      "int64" -> numbers.map { it.toLong() }.toLongArray()
      "bool" -> numbers.map { it == "1" }.toBooleanArray()
      else -> numbers.map { it.toInt().toByte() }.toByteArray()
    }
}

private fun text(array: Any?) =
  when (array) {
    is FloatArray -> array.toList()
    is IntArray -> array.toList()
    is LongArray -> array.toList()
    is BooleanArray -> array.toList()
    else -> (array as ByteArray).toList()
  }.toString()

/**
 * Runs the vectors of a file: blocks of lines, each a role, a port, a type and numbers. `given` is
 * what the class is given, `written` and `computed` are inputs and outputs of the file, `expected`
 * is what the class must return.
 *
 * @return What went wrong, a line each.
 */
fun run(path: String, student: (Map<String, FloatArray>) -> Map<String, FloatArray>): List<String> {
  val wrong = mutableListOf<String>()
  for (block in File(path).readText().trim().split("\n\n")) {
    val lines =
      block.lines().map { it.split(" ") }.map { Line(it[0], it[1], it[2], it.drop(3)) }
    fun of(role: String) = lines.filter { it.role == role }.associate { it.port to it.array }
    Device.file = { written ->
      for ((port, expected) in of("written"))
        if (text(written[port]) != text(expected))
          wrong += "$port: ${text(written[port])} for ${text(expected)}"
      of("computed")
    }
    val got = student(of("given").mapValues { it.value as FloatArray })
    for ((port, expected) in of("expected"))
      if (text(got[port]) != text(expected)) wrong += "$port: ${text(got[port])}, not ${text(expected)}"
  }
  return wrong
}
