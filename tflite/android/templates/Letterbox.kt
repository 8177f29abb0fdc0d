package @PACKAGE@

import android.graphics.Bitmap
import kotlin.math.max
import kotlin.math.min

/** Edges in pixels of a picture that stands upright. */
data class Box(val left: Float, val top: Float, val right: Float, val bottom: Float)

/**
 * How a picture becomes an input: turned upright, scaled to fit, black to the right of it or below.
 *
 * @param width Of the picture as it is stored.
 * @param height Likewise.
 * @param rotation By how many degrees it must be turned clockwise to stand upright.
 */
internal class Letterbox(width: Int, height: Int, private val rotation: Int = 0) {
  private val turned = rotation == 90 || rotation == 270
  private val uprightWidth = if (turned) height else width
  private val uprightHeight = if (turned) width else height
  private val scale = min(WIDTH.toDouble() / uprightWidth, HEIGHT.toDouble() / uprightHeight)
  private val fitWidth = fit(uprightWidth, WIDTH)
  private val fitHeight = fit(uprightHeight, HEIGHT)

  /** The part of the input that the picture takes, of its width and of its height. */
  val partAcross = fitWidth / WIDTH.toDouble()
  val partDown = fitHeight / HEIGHT.toDouble()

  /** To which size the picture is scaled before it is turned. */
  val scaledWidth = if (turned) fitHeight else fitWidth
  val scaledHeight = if (turned) fitWidth else fitHeight

  init {
    require(rotation in setOf(0, 90, 180, 270)) { "rotation must be 0, 90, 180 or 270, not $rotation" }
  }

  private fun fit(size: Int, most: Int) = max(1, min(Math.rint(size * scale).toInt(), most))

  /** The picture as the student takes it. */
  fun input(bitmap: Bitmap): Bitmap {
    val placed = placed(pixels(bitmap, scaledWidth, scaledHeight))
    return Bitmap.createBitmap(placed, WIDTH, HEIGHT, Bitmap.Config.ARGB_8888)
  }

  /** The pixels of the scaled picture, turned upright and put to the upper left on black. */
  fun placed(pixels: IntArray): IntArray {
    val result = IntArray(WIDTH * HEIGHT) { BLACK }
    val turned = upright(pixels, scaledWidth, scaledHeight, rotation)
    for (y in 0 until fitHeight) {
      turned.copyInto(result, y * WIDTH, y * fitWidth, (y + 1) * fitWidth)
    }
    return result
  }

  /** A box of the input in the coordinates of the upright picture, cut at its edges. */
  fun back(left: Float, top: Float, right: Float, bottom: Float) =
    Box(
      back(left, uprightWidth),
      back(top, uprightHeight),
      back(right, uprightWidth),
      back(bottom, uprightHeight),
    )

  private fun back(edge: Float, size: Int) = (edge / scale).toFloat().coerceIn(0f, size.toFloat())

  companion object {
    private const val WIDTH = @WIDTH@
    private const val HEIGHT = @HEIGHT@
    private const val BLACK = 0xFF shl 24
  }
}
