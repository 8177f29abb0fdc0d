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
 * All are direct buffers. An output may be a part of an input, which is read before.
 */
fun interface Signatures {
    fun run(name: String, inputs: Map<String, Any>, outputs: Map<String, Any>)
}

/** Writes token by token with the file `@FILE@`. One thread may use it at a time. */
class Generator(private val signatures: Signatures) {
    private val kept = KEPT.associate { it.name to empty(it.bytes) }
    private val scores = empty(@SCORES_BYTES@)
    private var position = 0

    /** Forgets all tokens. */
    fun start() {
        for (each in KEPT) {
            val buffer = kept.getValue(each.name)
            for (i in 0 until each.bytes) buffer.put(i, each.zero)
        }
        position = 0
    }
@ENCODE@
    /** Reads the next tokens, and gives the logits of the one after them. */
    fun read(tokens: IntArray): FloatArray {
        require(tokens.isNotEmpty()) { "there must be a token to read" }
        require(position + tokens.size <= LENGTH) { "there is room for $LENGTH tokens" }
        var first = 0
        while (first < tokens.size) {
            val size = if (PREFILL in 2..tokens.size - first) PREFILL else 1
            val inputs = kept + mapOf(
                "tokens" to filled(tokens.copyOfRange(first, first + size)),
                "position" to filled(intArrayOf(position)),
            )
            val outputs = mutableMapOf("logits" to scores)
            for (each in KEPT) {
                if (each.after.isEmpty()) continue
                val buffer = kept.getValue(each.name).duplicate()
                buffer.clear()
                if (each.token > 0) {
                    buffer.position(position * each.token)
                    buffer.limit((position + size) * each.token)
                }
                outputs[each.after] = buffer.slice()
            }
            run(if (size > 1) "prefill" else "decode", inputs, outputs)
            position += size
            first += size
        }
        return FloatArray(scores.capacity() / 4) { scores.getFloat(4 * it) }
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

    private fun run(name: String, inputs: Map<String, ByteBuffer>, outputs: Map<String, ByteBuffer>) {
        for (buffer in inputs.values + outputs.values) buffer.rewind()
        signatures.run(name, inputs, outputs)
    }

    private fun empty(bytes: Int) = ByteBuffer.allocateDirect(bytes).order(ByteOrder.nativeOrder())

    private fun filled(values: Any): ByteBuffer = when (values) {
        is IntArray -> empty(4 * values.size).also { buffer -> values.forEach { buffer.putInt(it) } }
        is FloatArray -> empty(4 * values.size).also { buffer -> values.forEach { buffer.putFloat(it) } }
        else -> throw IllegalArgumentException("give an IntArray or a FloatArray")
    }

    /** What is kept of the tokens before; `token` bytes of each, or all of it anew. */
    private class Kept(
        val name: String,
        val bytes: Int,
        val after: String,
        val token: Int,
        val zero: Byte,
    )

    companion object {
        const val LENGTH = @LENGTH@
        const val END = @END@
@CONSTANTS@        private const val PREFILL = @PREFILL@
        private val KEPT = listOf(
@KEPT@        )
    }
}
