package @PACKAGE@

import android.graphics.Bitmap
import android.graphics.Canvas
import android.graphics.Paint
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

/** A copy of an upright picture with the boxes, labels and scores of what is found on it. */
fun @CLASS@.draw(bitmap: Bitmap): Bitmap {
  val copy = bitmap.copy(Bitmap.Config.ARGB_8888, true)
  val canvas = Canvas(copy)
  val paint = Paint()
  paint.strokeWidth = max(copy.width, copy.height) / 250f
  paint.textSize = max(copy.width, copy.height) / 30f
  for (found in detect(bitmap)) {
    val (left, top, right, bottom) = found.box
    paint.color = COLORS[DETECTED.indexOf(found.label) % COLORS.size]
    paint.style = Paint.Style.STROKE
    canvas.drawRect(left, top, right, bottom, paint)
    paint.style = Paint.Style.FILL
    canvas.drawText("${found.label} ${Math.round(found.score * 100)} %", left, bottom, paint)
  }
  return copy
}

private val COLORS = listOf(0xFF0072B2, 0xFFE69F00, 0xFF009E73, 0xFFD55E00, 0xFFCC79A7).map { it.toInt() }

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
