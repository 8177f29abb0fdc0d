// Class maps of pictures, on a device made up: a student of three classes on 2 x 3 fields.
package org.example.streets_kit

import android.content.Context
import android.content.res.AssetManager
import android.graphics.Bitmap
import com.google.ai.edge.litert.Device
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Test

class ClassMapTest {
  private var given = FloatArray(0)

  init {
    AssetManager.names = setOf("streets.tflite")
    Device.open.clear()
    Device.thread = null
    Device.file = {
      given = it.getValue("image") as FloatArray
      // Of the last field, all are equal.
      val best = intArrayOf(2, 0, 1, 1, 1)
      mapOf("scores" to FloatArray(18) { i -> if (best.getOrNull(i / 3) == i % 3) 1f else -1f })
    }
  }

  /** Pixels whose blue is 0, 1, 2, ..., before the kit's mean of 1 and its deviation of 2. */
  private fun picture(width: Int, height: Int) = Bitmap(width, height, IntArray(24) { it + (255 shl 24) })

  private fun blue() = List(24) { (given[3 * it + 2] * 2 + 1).toInt() }

  @Test
  fun eachFieldHasItsBestClass() {
    Streets(Context()).use {
      val map = it.segment(picture(6, 4))
      assertEquals(List(24) { i -> i }, blue())
      assertEquals(listOf(3, 2, listOf(2, 0, 1, 1, 1, 0)), listOf(map.width, map.height, map.classes.toList()))
      assertEquals(listOf("\$car", "sky", "the \"road\""), listOf(0f, 0.5f, 0.67f).map { x -> map.at(x, 0.4f) })
      assertEquals("sky", map.at(1f, 1f))
      assertEquals(mapOf("\$car" to 1 / 6f, "sky" to 2 / 6f, "the \"road\"" to 3 / 6f), map.shares())
      assertEquals(ClassMap.COLORS[2], map.bitmap().getPixel(0, 0))
      assertEquals(7, map.bitmap(listOf(7, 8)).getPixel(1, 0))
    }
  }

  @Test
  fun picturesAreTurnedUpright() {
    Streets(Context()).use {
      it.segment(picture(4, 6), 90)
      // Clockwise: the left column, from below, becomes the first row.
      assertEquals(List(6) { x -> 4 * (5 - x) }, blue().take(6))
      it.segment(picture(4, 6), 270)
      assertEquals(List(6) { x -> 4 * x + 3 }, blue().take(6))
      it.segment(picture(6, 4), 180)
      assertEquals(List(24) { x -> 23 - x }, blue())
      val error = assertThrows(IllegalArgumentException::class.java) { it.segment(picture(6, 4), 45) }
      assertEquals("rotation must be 0, 90, 180 or 270, not 45", error.message)
    }
  }

  @Test
  fun picturesKeepTheirProportions() {
    Streets(Context()).use {
      val wide = it.segment(Bitmap(6, 2, IntArray(12) { i -> i + (255 shl 24) }))
      assertEquals(List(24) { i -> if (i < 12) i else 0 }, blue())
      assertEquals(listOf(3, 1, listOf(2, 0, 1)), listOf(wide.width, wide.height, wide.classes.toList()))
      assertEquals("sky", wide.at(0.5f, 0.99f))
      val tall = it.segment(Bitmap(4, 2, IntArray(8) { i -> i + (255 shl 24) }), 90)
      assertEquals(listOf(4, 0, 0, 5, 1, 0), blue().filterIndexed { i, _ -> i % 6 < 3 }.take(6))
      assertEquals(listOf(1, 2, listOf(2, 1)), listOf(tall.width, tall.height, tall.classes.toList()))
      assertEquals(mapOf("\$car" to 0.5f, "the \"road\"" to 0.5f), tall.shares())
    }
  }

  @Test
  fun colorsAreDrawnOverACopy() {
    val picture = picture(6, 4)
    val drawn = Streets(Context()).use { it.draw(picture) }
    val expected = listOf(2, 0, 1, 1, 1, 0).map { ClassMap.COLORS[it] }
    assertEquals(List(24) { expected[it / 12 * 3 + it % 6 / 2] }, List(24) { drawn.getPixel(it % 6, it / 6) })
    assertEquals(255 shl 24, picture.getPixel(0, 0))
  }
}
