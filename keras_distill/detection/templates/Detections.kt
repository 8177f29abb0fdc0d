package @PACKAGE@

import android.graphics.Bitmap
import android.graphics.Canvas
import android.graphics.Paint
import kotlin.math.max

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
