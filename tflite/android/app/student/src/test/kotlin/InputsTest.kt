package @PACKAGE@

import java.nio.ByteBuffer
import java.nio.ByteOrder
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Test

/** What becomes of buffers and pixels. */
class InputsTest {
  private fun buffer() =
    ByteBuffer.allocateDirect(12).order(ByteOrder.LITTLE_ENDIAN).apply {
      putInt(7)
      putFloat(1.5f)
      putFloat(-2f)
      position(4)
    }

  @Test
  fun buffersAreReadFromTheirPositionInTheirOrder() {
    val buffer = buffer()
    assertArrayEquals(floatArrayOf(1.5f, -2f), floats(buffer), 0f)
    assertArrayEquals(intArrayOf(1.5f.toRawBits(), (-2f).toRawBits()), ints(buffer))
    assertArrayEquals(longArrayOf((-2f).toRawBits().toLong() shl 32 or 0x3FC00000L), longs(buffer))
    assertArrayEquals(byteArrayOf(0, 0, -64, 63, 0, 0, 0, -64), bytes(buffer))
    assertEquals(4, buffer.position())
  }

  @Test
  fun pixelsAreRedGreenBlueOrGray() {
    val colors = intArrayOf(0xFF102030.toInt(), 0xFFFFFFFF.toInt(), 0, 0xFFFF0000.toInt())
    val red = byteArrayOf(16, 32, 48, -1, -1, -1, 0, 0, 0, -1, 0, 0)
    assertArrayEquals(red, values(colors, 3))
    assertArrayEquals(byteArrayOf(29, -1, 0, 76), values(colors, 1))
    assertArrayEquals(floatArrayOf(29f, 255f, 0f, 76f), unsigned(values(colors, 1)), 0f)
  }
}
