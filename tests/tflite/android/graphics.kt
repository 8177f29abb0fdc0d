package android.graphics

import java.io.InputStream

/** A picture of one color a pixel, as `getPixels` gives them. */
class Bitmap(val width: Int, val height: Int, private val colors: IntArray) {
  fun getPixels(into: IntArray, offset: Int, stride: Int, x: Int, y: Int, width: Int, height: Int) {
    for (row in 0 until height) for (column in 0 until width) {
      into[offset + row * stride + column] = colors[(y + row) * this.width + x + column]
    }
  }

  fun getPixel(x: Int, y: Int): Int = colors[y * width + x]

  fun copy(config: Config, isMutable: Boolean): Bitmap {
    check(config == Config.ARGB_8888 && isMutable)
    return Bitmap(width, height, colors.copyOf())
  }

  internal fun set(x: Int, y: Int, color: Int) {
    if (x in 0 until width && y in 0 until height) colors[y * width + x] = color
  }

  enum class Config {
    ARGB_8888
  }

  companion object {
    fun createBitmap(colors: IntArray, width: Int, height: Int, config: Config): Bitmap {
      check(config == Config.ARGB_8888)
      return Bitmap(width, height, colors)
    }

    /** Pictures that have the size already. */
    fun createScaledBitmap(bitmap: Bitmap, width: Int, height: Int, filter: Boolean): Bitmap {
      check(filter && bitmap.width == width && bitmap.height == height)
      return bitmap
    }
  }
}

class Paint {
  var color: Int = 0
  var strokeWidth: Float = 0f
  var textSize: Float = 0f
  var style: Style = Style.FILL

  enum class Style {
    FILL,
    STROKE,
  }
}

class Rect(val left: Int, val top: Int, val right: Int, val bottom: Int)

/** Lines one pixel wide, no text, and pictures that hide what is under them. */
class Canvas(private val bitmap: Bitmap) {
  fun drawRect(left: Float, top: Float, right: Float, bottom: Float, paint: Paint) {
    check(paint.style == Paint.Style.STROKE && paint.strokeWidth > 0)
    for (x in left.toInt()..right.toInt()) for (y in top.toInt()..bottom.toInt()) {
      val edge = x == left.toInt() || x == right.toInt() || y == top.toInt() || y == bottom.toInt()
      if (edge) bitmap.set(x, y, paint.color)
    }
  }

  fun drawText(text: String, x: Float, y: Float, paint: Paint) {
    check(paint.style == Paint.Style.FILL && paint.textSize > 0)
    written += text
  }

  fun drawBitmap(picture: Bitmap, from: Rect?, to: Rect, paint: Paint?) {
    check(from == null && paint == null)
    val (width, height) = to.right - to.left to to.bottom - to.top
    for (x in 0 until width) for (y in 0 until height) {
      val color = picture.getPixel(x * picture.width / width, y * picture.height / height)
      bitmap.set(to.left + x, to.top + y, color)
    }
  }

  companion object {
    val written = mutableListOf<String>()
  }
}

object BitmapFactory {
  fun decodeStream(stream: InputStream): Bitmap? = if (stream.available() == 0) null else Bitmap(1, 1, IntArray(1))
}
