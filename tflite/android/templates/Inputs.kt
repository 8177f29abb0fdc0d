package @PACKAGE@

import android.graphics.Bitmap
import java.nio.ByteBuffer

// What a buffer holds from its position on, in its own byte order. LiteRT's Kotlin API takes arrays
// only, so this is one copy. The position stays.

internal fun floats(buffer: ByteBuffer): FloatArray =
  same(buffer).asFloatBuffer().let { FloatArray(it.remaining()).also(it::get) }

internal fun ints(buffer: ByteBuffer): IntArray =
  same(buffer).asIntBuffer().let { IntArray(it.remaining()).also(it::get) }

internal fun longs(buffer: ByteBuffer): LongArray =
  same(buffer).asLongBuffer().let { LongArray(it.remaining()).also(it::get) }

internal fun bytes(buffer: ByteBuffer): ByteArray =
  same(buffer).let { ByteArray(it.remaining()).also(it::get) }

private fun same(buffer: ByteBuffer) = buffer.duplicate().order(buffer.order())

/** The pixels of a picture, scaled to a size without keeping its proportions. */
internal fun pixels(bitmap: Bitmap, width: Int, height: Int): IntArray {
  val scaled = Bitmap.createScaledBitmap(bitmap, width, height, true)
  return IntArray(width * height).also { scaled.getPixels(it, 0, width, 0, 0, width, height) }
}

/**
 * Pixels turned clockwise until their picture stands upright.
 *
 * @param pixels Row by row.
 * @param width Of the picture as it is.
 * @param height Likewise.
 * @param rotation 0, 90, 180 or 270 degrees.
 */
internal fun upright(pixels: IntArray, width: Int, height: Int, rotation: Int): IntArray {
  require(rotation in setOf(0, 90, 180, 270)) { "rotation must be 0, 90, 180 or 270, not $rotation" }
  val across = if (rotation % 180 == 0) width else height
  return IntArray(pixels.size) {
    val x = it % across
    val y = it / across
    when (rotation) {
      90 -> pixels[(height - 1 - x) * width + y]
      180 -> pixels[(height - 1 - y) * width + width - 1 - x]
      270 -> pixels[x * width + width - 1 - y]
      else -> pixels[it]
    }
  }
}

/**
 * The values 0 to 255 of pixels, row by row.
 *
 * @param pixels Colors as `Bitmap.getPixels` gives them.
 * @param channels 3 for red, green and blue; 1 for gray, by the weights of ITU-R 601.
 */
internal fun values(pixels: IntArray, channels: Int): ByteArray {
  val result = ByteArray(pixels.size * channels)
  for ((i, color) in pixels.withIndex()) {
    val red = color shr 16 and 255
    val green = color shr 8 and 255
    val blue = color and 255
    if (channels == 1) {
      result[i] = (red * 19595 + green * 38470 + blue * 7471 + 32768 shr 16).toByte()
    } else {
      result[3 * i] = red.toByte()
      result[3 * i + 1] = green.toByte()
      result[3 * i + 2] = blue.toByte()
    }
  }
  return result
}

/** Bytes as the numbers 0 to 255. */
internal fun unsigned(bytes: ByteArray) = FloatArray(bytes.size) { (bytes[it].toInt() and 255).toFloat() }
