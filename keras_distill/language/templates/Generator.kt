package @PACKAGE@

import java.nio.ByteBuffer
import java.nio.ByteOrder

/**
 * Runs a signature of the file. With LiteRT:
 *
 *     val interpreter = org.tensorflow.lite.Interpreter(file)
 *     val generator = Generator { name, inputs, outputs ->
 *         interpreter.runSignature(inputs, outputs, name)
 *     }
 *
 * All are direct buffers.
 */
fun interface Signatures {
    fun run(name: String, inputs: Map<String, Any>, outputs: Map<String, Any>)
}

/** Writes token by token with the file `@FILE@`. One thread may use it at a time. */
class Generator(private val signatures: Signatures) {
    private val kept = INPUTS.getValue("decode") - setOf("tokens", "position")
    private val memory = kept.mapValues { empty(it.value.bytes) }
    private val results = OUTPUTS.mapValues { (_, ports) -> ports.mapValues { empty(it.value.bytes) } }
    private var position = 0

    init {
        start()
    }

    /** Forgets all tokens. */
    fun start() {
        for ((name, port) in kept) {
            val buffer = memory.getValue(name)
            for (i in 0 until port.bytes) buffer.put(i, port.zero.toByte())
        }
        position = 0
    }
@ENCODE@
    /** Reads the next tokens, and gives the logits of the one after them. */
    fun read(tokens: IntArray): FloatArray {
        require(tokens.isNotEmpty()) { "there must be a token to read" }
        require(position + tokens.size <= LENGTH) { "there is room for $LENGTH tokens" }
        var logits = floatArrayOf()
        var first = 0
        while (first < tokens.size) {
            val size = if (PREFILL in 2..tokens.size - first) PREFILL else 1
            val name = if (size > 1) "prefill" else "decode"
            val given = mapOf(
                "tokens" to filled(tokens.copyOfRange(first, first + size)),
                "position" to filled(intArrayOf(position)),
            )
            val ports = OUTPUTS.getValue(name)
            for ((key, output) in run(name, given)) {
                val port = ports.getValue(key)
                when {
                    key == "logits" -> logits = port.floats(output)
                    key.endsWith("_new") -> keep(key.removeSuffix("_new"), port, output, position)
                    else -> keep(key.removeSuffix("_out"), port, output)
                }
            }
            position += size
            first += size
        }
        return logits
    }
@WRITE@
    /** Goes on with the likeliest tokens up to [END] or `length` tokens. */
    private fun goneOn(given: IntArray, length: Int): IntArray {
        require(given.size < length && length <= LENGTH) { "there is room for $LENGTH tokens" }
        var written = given
        var logits = read(given)
        while (true) {
            val next = (1 until logits.size).maxBy { logits[it] } // Token 0 is padding.
            written += next
            if (next == END || written.size == length) return written
            logits = read(intArrayOf(next))
        }
    }

    /** Runs a signature with what it is given and what is kept. */
    private fun run(name: String, given: Map<String, ByteBuffer>): Map<String, ByteBuffer> {
        val inputs = INPUTS.getValue(name).mapValues { (key, port) ->
            given[key] ?: kept.getValue(key).rescaled(memory.getValue(key), port)
        }
        val outputs = results.getValue(name)
        for (buffer in inputs.values + outputs.values) buffer.rewind()
        signatures.run(name, inputs, outputs)
        return outputs
    }

    /** Puts an output where its input has the token at `place`, or all there is to it. */
    private fun keep(name: String, port: Port, output: ByteBuffer, place: Int = 0) {
        val target = kept.getValue(name)
        val values = port.rescaled(output, target)
        values.rewind()
        val buffer = memory.getValue(name).duplicate()
        buffer.position(place * (target.bytes / LENGTH))
        buffer.put(values)
    }

    /** Numbers as a signature takes or gives them: bytes if they have a scale, or floats. */
    private class Port(val bytes: Int, val scale: Double, val zero: Int) {
        fun floats(buffer: ByteBuffer) = when (scale) {
            0.0 -> FloatArray(buffer.capacity() / 4) { buffer.getFloat(4 * it) }
            else -> FloatArray(buffer.capacity()) { ((buffer.get(it) - zero) * scale).toFloat() }
        }

        fun filled(values: FloatArray): ByteBuffer {
            if (scale == 0.0) return empty(4 * values.size).also { values.forEach(it::putFloat) }
            val steps = values.map { (Math.rint(it / scale) + zero).coerceIn(-128.0, 127.0) }
            return empty(steps.size).also { buffer -> steps.forEach { buffer.put(it.toInt().toByte()) } }
        }

        fun rescaled(buffer: ByteBuffer, to: Port) =
            if (scale == to.scale && zero == to.zero) buffer else to.filled(floats(buffer))
    }

    companion object {
        const val LENGTH = @LENGTH@
        const val END = @END@
@CONSTANTS@        private const val PREFILL = @PREFILL@
        private val INPUTS = mapOf(
@INPUTS@        )
        private val OUTPUTS = mapOf(
@OUTPUTS@        )

        private fun empty(bytes: Int) = ByteBuffer.allocateDirect(bytes).order(ByteOrder.nativeOrder())

        private fun filled(values: IntArray) =
            empty(4 * values.size).also { buffer -> values.forEach { buffer.putInt(it) } }
    }
}
