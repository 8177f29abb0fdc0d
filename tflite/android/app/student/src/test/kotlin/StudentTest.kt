package @PACKAGE@

import com.google.ai.edge.litert.Accelerator
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test

/** What the class knows without a runtime. */
class StudentTest {
  @Test
  fun bestNamesTheClassesOfTheHighestScores() {
    val scores = floatArrayOf(0.1f, 0.7f, 0.2f)
    val names = List(3) { @CLASS@.LABELS.getOrNull(it) ?: "$it" }
    assertEquals(listOf(names[1] to 0.7f, names[2] to 0.2f), @CLASS@.best(scores, 2))
    assertEquals(names.size, @CLASS@.best(scores).size)
  }

  @Test
  fun everyAcceleratorHasAnAsset() {
    assertEquals(@ASSET@, @CLASS@.asset(Accelerator.CPU))
    for (accelerator in Accelerator.entries)
      assertTrue(@CLASS@.asset(accelerator).endsWith(".tflite"))
  }
}
