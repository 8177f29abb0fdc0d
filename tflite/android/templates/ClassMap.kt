package @PACKAGE@

import android.graphics.Bitmap
import android.graphics.Canvas
import android.graphics.Rect
import kotlin.math.max

/**
 * The class of each pixel of a picture, on the part of the student's grid that the picture takes.
 *
 * @param classes Indices of [@CLASS@.LABELS], row by row.
 */
class ClassMap(val width: Int, val height: Int, val classes: IntArray) {
  /** The name of the class at a position: 0 is the left or upper edge of the picture, 1 the other. */
  fun at(x: Float, y: Float): String {
    val column = (x * width).toInt().coerceIn(0, width - 1)
    val row = (y * height).toInt().coerceIn(0, height - 1)
    return @CLASS@.LABELS[classes[row * width + column]]
  }

  /** The share of the picture that each class takes, by name, without those that aren't there. */
  fun shares(): Map<String, Float> =
    classes.groupBy { it }.entries.associate { (label, all) ->
      @CLASS@.LABELS[label] to all.size.toFloat() / classes.size
    }

  /** A picture of the size of the grid, in one color a class. */
  fun bitmap(colors: List<Int> = COLORS): Bitmap {
    val pixels = IntArray(classes.size) { colors[classes[it] % colors.size] }
    return Bitmap.createBitmap(pixels, width, height, Bitmap.Config.ARGB_8888)
  }

  companion object {
    /** Half-transparent colors, which are told apart by the color-blind, too. */
    val COLORS: List<Int> =
      listOf(0x800072B2, 0x80E69F00, 0x80009E73, 0x80D55E00, 0x80CC79A7, 0x8056B4E9, 0x80F0E442, 0x80000000)
        .map { it.toInt() }
  }
}

/**
 * The class of each pixel of a picture.
 *
 * @param bitmap The picture, which is scaled to fit @WIDTH@ x @HEIGHT@, its proportions kept.
 *   Pictures of the configuration HARDWARE can't be read.
 * @param rotation By how many degrees it must be turned clockwise to stand upright: 0, 90, 180 or
 *   270. The map is that of the upright picture.
 */
fun @CLASS@.segment(bitmap: Bitmap, rotation: Int = 0): ClassMap {
  val letterbox = Letterbox(bitmap.width, bitmap.height, rotation)
  val input = letterbox.input(bitmap)
  return covered(@CLASSES@, letterbox)
}

/** What a letterbox leaves of the map of an input: not what is beside or below the picture. */
private fun covered(classes: IntArray, letterbox: Letterbox): ClassMap {
  val width = max(1, Math.rint(letterbox.partAcross * @MAP_WIDTH@).toInt())
  val height = max(1, Math.rint(letterbox.partDown * @MAP_HEIGHT@).toInt())
  return ClassMap(width, height, IntArray(width * height) { classes[it / width * @MAP_WIDTH@ + it % width] })
}

/** A copy of an upright picture with the colors of the classes over it. */
fun @CLASS@.draw(bitmap: Bitmap): Bitmap {
  val copy = bitmap.copy(Bitmap.Config.ARGB_8888, true)
  val all = Rect(0, 0, copy.width, copy.height)
  Canvas(copy).drawBitmap(segment(bitmap).bitmap(), null, all, null)
  return copy
}

/** The class of the highest score of each pixel, of equal ones the first. */
internal fun highest(scores: FloatArray, classes: Int): IntArray =
  IntArray(scores.size / classes) { pixel ->
    val first = pixel * classes
    var best = first
    for (i in first until first + classes) if (scores[i] > scores[best]) best = i
    best - first
  }
