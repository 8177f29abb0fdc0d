package @PACKAGE@

import android.graphics.Bitmap
import kotlin.math.max
import kotlin.math.min

/** Edges in pixels of a picture that stands upright. */
data class Box(val left: Float, val top: Float, val right: Float, val bottom: Float)

/** What was found: the name of its class, a score from 0 to 1, and where it is. */
data class Detection(val label: String, val score: Float, val box: Box)

/** Names of the classes that are found. */
val DETECTED: List<String> = listOf(@LABELS@)

/**
 * What is found on a picture, the surest first.
 *
 * @param bitmap The picture, which is scaled to fit, its proportions kept. Pictures of the
 *   configuration HARDWARE can't be read.
 * @param rotation By how many degrees it must be turned clockwise to stand upright: 0, 90, 180 or
 *   270. Boxes are those of the upright picture.
 */
fun @CLASS@.detect(bitmap: Bitmap, rotation: Int = 0): List<Detection> {
  val letterbox = Letterbox(bitmap.width, bitmap.height, rotation)
  val result = run(letterbox.input(bitmap))
  return detections(result.boxes, result.scores, result.labels, letterbox)
}

/** The outputs of the file, in the coordinates of the picture. */
internal fun detections(
  boxes: FloatArray,
  scores: FloatArray,
  labels: IntArray,
  letterbox: Letterbox,
): List<Detection> =
  labels.indices
    .filter { labels[it] >= 0 }
    .map {
      val box = letterbox.back(boxes[4 * it], boxes[4 * it + 1], boxes[4 * it + 2], boxes[4 * it + 3])
      Detection(DETECTED[labels[it]], scores[it], box)
    }

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

  /** To which size the picture is scaled before it is turned. */
  val scaledWidth = if (turned) fitHeight else fitWidth
  val scaledHeight = if (turned) fitWidth else fitHeight

  init {
    require(rotation in setOf(0, 90, 180, 270)) { "rotation must be 0, 90, 180 or 270, not $rotation" }
  }

  private fun fit(size: Int, most: Int) = max(1, min(Math.rint(size * scale).toInt(), most))

  /** The picture as the student takes it. */
  fun input(bitmap: Bitmap): Bitmap {
    val scaled = Bitmap.createScaledBitmap(bitmap, scaledWidth, scaledHeight, true)
    val pixels = IntArray(scaledWidth * scaledHeight)
    scaled.getPixels(pixels, 0, scaledWidth, 0, 0, scaledWidth, scaledHeight)
    return Bitmap.createBitmap(placed(pixels), WIDTH, HEIGHT, Bitmap.Config.ARGB_8888)
  }

  /** The pixels of the scaled picture, turned upright and put to the upper left on black. */
  fun placed(pixels: IntArray): IntArray {
    val result = IntArray(WIDTH * HEIGHT) { BLACK }
    for (y in 0 until fitHeight) for (x in 0 until fitWidth) {
      val from =
        when (rotation) {
          90 -> (scaledHeight - 1 - x) * scaledWidth + y
          180 -> (scaledHeight - 1 - y) * scaledWidth + scaledWidth - 1 - x
          270 -> x * scaledWidth + scaledWidth - 1 - y
          else -> y * scaledWidth + x
        }
      result[y * WIDTH + x] = pixels[from]
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
