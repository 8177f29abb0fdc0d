package android.graphics

/** A picture of one color a pixel, as `getPixels` gives them. */
class Bitmap(val width: Int, val height: Int, private val colors: IntArray) {
  fun getPixels(into: IntArray, offset: Int, stride: Int, x: Int, y: Int, width: Int, height: Int) {
    for (row in 0 until height) for (column in 0 until width) {
      into[offset + row * stride + column] = colors[(y + row) * this.width + x + column]
    }
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
