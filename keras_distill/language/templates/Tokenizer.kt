package @PACKAGE@

/**
 * The ids of a text, as those that @CLASS@ was trained on: @DOCUMENTED@.
 */
class Tokenizer {
@MEMBERS@
    /** The ids of the first [LENGTH] tokens of a text, and 0 in place of those that are missing. */
    fun ids(text: String): IntArray {
        val ids = IntArray(LENGTH)
        val token = java.io.ByteArrayOutputStream()
        var count = 0
        for (byte in text.encodeToByteArray()) {
            if (count == LENGTH) break
            if (STRIPS && isPunctuation(byte.toInt())) continue
            if (ends(byte.toInt()) && token.size() > 0) {
                ids[count++] = id(token.toByteArray())
                token.reset()
            }
            if (KEEPS_SPACES || !isSpace(byte.toInt())) token.write(lower(byte.toInt()))
        }
        if (count < LENGTH && token.size() > 0) ids[count] = id(token.toByteArray())
        return ids
    }

    private fun lower(byte: Int) = if (LOWERS && byte in 65..90) byte + 32 else byte

    private fun isSpace(byte: Int) = byte == 32 || byte in 9..13

    private fun isPunctuation(byte: Int) =
        byte in 33..47 || byte in 58..64 || byte in 91..96 || byte in 123..126

    /** Whether a byte is none of the token before it. */
    private fun ends(byte: Int) = @ENDS@

@ID@
    companion object {
        const val LENGTH = @LENGTH@
        private const val LOWERS = @LOWERS@
        private const val STRIPS = @STRIPS@
        private const val KEEPS_SPACES = @KEEPS_SPACES@
@CONSTANTS@    }
}
