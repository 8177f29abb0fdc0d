// The class of the kit on devices made up: what runs where, files, threads, closing.
package org.example.digits

import android.content.Context
import android.content.res.AssetManager
import android.graphics.Bitmap
import com.google.ai.edge.litert.Accelerator.CPU
import com.google.ai.edge.litert.Accelerator.GPU
import com.google.ai.edge.litert.Accelerator.NPU
import com.google.ai.edge.litert.Accelerator
import com.google.ai.edge.litert.Device
import com.google.ai.edge.litert.LiteRtException
import java.io.File
import java.nio.ByteBuffer
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

class DeviceTest {
  private val image = FloatArray(64) { it.toFloat() }

  init {
    AssetManager.names = setOf("my_digits.tflite", "my_digits_int8.tflite")
    Device.open.clear()
    Device.thread = null
    Device.hasNpu = false
    Device.hasGpu = false
    Device.whole = setOf()
    Device.file = { mapOf("logits" to (it["image"] as FloatArray).copyOf(10)) }
  }

  private fun student(vararg accelerators: Accelerator, inPart: Boolean = false) =
    MyDigits(Context(), accelerators.toList(), inPart)

  /** Closing waits for nothing: a thread of the student's own does it. */
  private fun assertNothingStaysOpen() {
    val until = System.nanoTime() + 10_000_000_000
    while (Device.open.isNotEmpty() && System.nanoTime() < until) Thread.sleep(5)
    assertTrue("${Device.open}", Device.open.isEmpty())
  }

  @Test
  fun npuWithoutNpuIsRefusedAndNothingStaysOpen() {
    val error = assertThrows(StudentException.NoAccelerator::class.java) { student(NPU) }
    assertEquals(NPU, error.refusals.single().accelerator)
    assertNothingStaysOpen()
  }

  @Test
  fun npuWithoutTheVendorsLibrariesIsRefused() {
    Device.hasNpu = true
    val error = assertThrows(StudentException.NoAccelerator::class.java) { student(NPU) }
    assertTrue(error.cause is LiteRtException)
    assertEquals("nothing runs the file: NPU: Some ops are not accelerated.", error.message)
  }

  @Test
  fun fallbackIsStated() {
    Device.hasGpu = true
    student(NPU, GPU, CPU).use {
      assertEquals(CPU, it.placement.accelerator)
      assertEquals(listOf(NPU, GPU), it.placement.refusals.map { refusal -> refusal.accelerator })
      assertEquals(setOf(GPU, CPU), it.placement.available)
      assertEquals(10, it.run(image).logits.size)
    }
    assertNothingStaysOpen()
  }

  @Test
  fun npuRunsItWholeOrInPart() {
    Device.hasNpu = true
    student(NPU, inPart = true).use { assertEquals("NPU in part", "${it.placement}") }
    Device.thread = null
    Device.whole = setOf(NPU)
    student(NPU, CPU).use { assertEquals("NPU", "${it.placement}") }
  }

  @Test
  fun allInputsAreTheSame() {
    val buffer = ByteBuffer.allocate(256)
    image.forEach(buffer::putFloat)
    buffer.rewind()
    val gray = IntArray(64) { it * 0x010101 or (255 shl 24) }
    student(CPU).use {
      val expected = FloatArray(10) { i -> i / 16f }
      assertArrayEquals(expected, it.run(image).logits, 0f)
      assertArrayEquals(expected, it.run(buffer).logits, 0f)
      assertArrayEquals(expected, it.run(Bitmap(8, 8, gray)).logits, 0f)
      assertArrayEquals(expected, it.run(mapOf("image" to image)).getValue("logits"), 0f)
      assertArrayEquals(expected, it.runAsync(image).get().logits, 0f)
      val error = assertThrows(IllegalArgumentException::class.java) { it.run(FloatArray(3)) }
      assertEquals("image must have 64 elements, not 3", error.message)
    }
  }

  @Test
  fun threadsShareIt() {
    val student = student(CPU)
    val threads = List(4) { i -> Thread { repeat(50) { student.run(FloatArray(64) { i * 1f }) } } }
    val failed = mutableListOf<Throwable>()
    for (thread in threads) thread.setUncaughtExceptionHandler { _, error -> failed += error }
    threads.forEach(Thread::start)
    threads.forEach(Thread::join)
    assertEquals(listOf<Throwable>(), failed)
    student.close()
    student.close()
    assertThrows(IllegalStateException::class.java) { student.run(image) }
  }

  @Test
  fun failuresAreTyped() {
    student(CPU).use {
      Device.file = { throw IllegalStateException("broken") }
      val error = assertThrows(StudentException.NotRun::class.java) { it.run(image) }
      assertEquals("the inference failed: broken", error.message)
    }
    Device.thread = null
    AssetManager.names = setOf()
    val missing = assertThrows(StudentException.NotLoaded::class.java) { student(GPU, CPU) }
    assertEquals("the app has no asset my_digits.tflite", missing.message)
    assertNothingStaysOpen()
  }

  @Test
  fun filesOutsideTheAssetsAreLoaded() {
    AssetManager.names = setOf()
    val file = File.createTempFile("student", ".tflite")
    MyDigits(Context(), path = file.path).use { assertEquals(10, it.run(image).logits.size) }
    file.delete()
    Device.thread = null
    assertThrows(StudentException.NotLoaded::class.java) { MyDigits(Context(), path = file.path) }
  }
}
