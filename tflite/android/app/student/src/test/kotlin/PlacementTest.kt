package @PACKAGE@

import com.google.ai.edge.litert.Accelerator.CPU
import com.google.ai.edge.litert.Accelerator.GPU
import com.google.ai.edge.litert.Accelerator.NONE
import com.google.ai.edge.litert.Accelerator.NPU
import com.google.ai.edge.litert.Accelerator
import org.junit.Assert.assertEquals
import org.junit.Assert.assertSame
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

/** Where the student runs, for devices that have or lack an accelerator. */
class PlacementTest {
  private val asked = mutableListOf<Set<Accelerator>>()

  /** A device on which each accelerator of [whole] runs all of the file, and the CPU whatever. */
  private fun placed(
    wanted: List<Accelerator>,
    available: Set<Accelerator>,
    whole: Set<Accelerator> = setOf(CPU),
    inPart: Boolean = false,
  ): Placement =
    place(wanted, inPart, available) { _, set ->
        asked += set
        if (CPU !in set && set.none(whole::contains)) throw Exception("operators are left over")
        "model"
      }
      .second

  @Test
  fun npuWithoutNpuIsRefused() {
    val error =
      assertThrows(StudentException.NoAccelerator::class.java) { placed(listOf(NPU), setOf(CPU)) }
    assertEquals(
      "nothing runs the file: NPU: LiteRT finds none that it can use here (it finds CPU)",
      error.message,
    )
    assertTrue(asked.isEmpty())
  }

  @Test
  fun fallbackIsStated() {
    val placement = placed(listOf(NPU, CPU), setOf(CPU, GPU))
    assertEquals(CPU, placement.accelerator)
    assertTrue(placement.whole)
    assertEquals(listOf(NPU), placement.refusals.map { it.accelerator })
    assertEquals(
      "CPU, not NPU: LiteRT finds none that it can use here (it finds CPU, GPU)",
      "$placement",
    )
  }

  @Test
  fun npuThatRunsNothingDoesNotPassForOne() {
    val error =
      assertThrows(StudentException.NoAccelerator::class.java) {
        placed(listOf(NPU), setOf(CPU, NPU))
      }
    assertEquals("operators are left over", error.refusals.single().reason)
    assertSame(error.refusals.single().cause, error.cause)
    // LiteRT would add the CPU to the NPU by itself.
    assertEquals(listOf(setOf(NPU, NONE)), asked)
  }

  @Test
  fun restIsLeftToTheCpuOnlyWhereAllowed() {
    val placement = placed(listOf(NPU, CPU), setOf(CPU, NPU), inPart = true)
    assertEquals("NPU in part", "$placement")
    assertEquals(listOf(setOf(NPU, NONE), setOf(NPU, CPU)), asked)
    assertEquals(CPU, placed(listOf(NPU, CPU), setOf(CPU, NPU)).accelerator)
  }

  @Test
  fun firstThatRunsTheWholeFileIsTaken() {
    val placement = placed(listOf(NPU, GPU, CPU), setOf(CPU, GPU, NPU), setOf(NPU))
    assertEquals("NPU", "$placement")
    assertEquals(setOf(CPU, GPU, NPU), placement.available)
    assertEquals("GPU", "${placed(listOf(NPU, GPU), setOf(GPU), setOf(GPU))}".substringBefore(","))
  }

  @Test
  fun wrongListsAreRefused() {
    for (wrong in listOf(listOf(), listOf(NONE)))
      assertThrows(IllegalArgumentException::class.java) { placed(wrong, setOf(CPU)) }
  }

  @Test
  fun missingFileIsNoMatterOfAccelerators() {
    val missing = StudentException.NotLoaded("no file", null)
    val error =
      assertThrows(StudentException.NotLoaded::class.java) {
        place<String>(listOf(GPU, CPU), false, setOf(CPU, GPU)) { _, _ -> throw missing }
      }
    assertSame(missing, error)
  }
}
