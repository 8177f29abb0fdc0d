package @PACKAGE@

import com.google.ai.edge.litert.Accelerator

/** What goes wrong where the student is loaded and run. */
sealed class StudentException(message: String, cause: Throwable?) : Exception(message, cause) {
  /** None of the accelerators asked for runs the file: [refusals] has the reason of each. */
  class NoAccelerator(val refusals: List<Refusal>) :
    StudentException(refusals.joinToString("; ", "nothing runs the file: "), refusals.last().cause)

  /** The file is missing, or LiteRT itself did not start. */
  class NotLoaded(message: String, cause: Throwable?) : StudentException(message, cause)

  /** An inference failed. */
  class NotRun(cause: Throwable) : StudentException("the inference failed: ${cause.message}", cause)
}

/** Why an accelerator doesn't run the file. */
class Refusal(val accelerator: Accelerator, val reason: String, val cause: Exception? = null) {
  override fun toString() = "${accelerator.name}: $reason"
}

/**
 * Where the student runs.
 *
 * @property accelerator What runs the file.
 * @property whole Whether it runs all operators. Where not, the CPU runs the others, which may be
 *   all of them: LiteRT's Kotlin API doesn't tell how many.
 * @property refusals Why the accelerators that were to come first don't run the file. Empty where
 *   the first one runs it.
 * @property available What LiteRT found on this device.
 */
class Placement
internal constructor(
  val accelerator: Accelerator,
  val whole: Boolean,
  val refusals: List<Refusal>,
  val available: Set<Accelerator>,
) {
  override fun toString() =
    accelerator.name + (if (whole) "" else " in part") + refusals.joinToString("") { ", not $it" }
}

/**
 * Finds the first of the accelerators that runs the file.
 *
 * LiteRT refuses a file of which some operators would be left over: it must have an accelerator for
 * each. With the CPU among the accelerators it leaves the rest, or all, to the CPU and says nothing.
 * So each is asked for by itself first.
 *
 * @param wanted Accelerators in the order in which they are to be tried.
 * @param inPart Whether one that runs only a part may leave the rest to the CPU.
 * @param available What LiteRT found on this device.
 * @param compile Compiles the file of an accelerator for a set of them, or throws.
 */
internal fun <Model> place(
  wanted: List<Accelerator>,
  inPart: Boolean,
  available: Set<Accelerator>,
  compile: (Accelerator, Set<Accelerator>) -> Model,
): Pair<Model, Placement> {
  require(wanted.isNotEmpty()) { "name an accelerator at least, such as Accelerator.CPU" }
  require(Accelerator.NONE !in wanted) { "Accelerator.NONE runs nothing: name another" }
  val refusals = mutableListOf<Refusal>()
  for (accelerator in wanted) {
    if (accelerator != Accelerator.CPU && accelerator !in available) {
      val found = available.joinToString { it.name }.ifEmpty { "nothing" }
      refusals += Refusal(accelerator, "LiteRT finds none that it can use here (it finds $found)")
      continue
    }
    val sets = listOf(alone(accelerator)) + if (inPart) listOf(withCpu(accelerator)) else listOf()
    var refused: Exception? = null
    for (set in sets.distinct()) {
      try {
        val whole = Accelerator.CPU !in set || accelerator == Accelerator.CPU
        return compile(accelerator, set) to Placement(accelerator, whole, refusals, available)
      } catch (error: StudentException) {
        throw error
      } catch (error: Exception) {
        refused = refused ?: error
      }
    }
    refusals += Refusal(accelerator, refused?.message ?: "$refused", refused)
  }
  throw StudentException.NoAccelerator(refusals)
}

/** To the NPU by itself LiteRT adds the CPU, but not to the NPU and NONE, which stands for nothing. */
private fun alone(accelerator: Accelerator) =
  if (accelerator == Accelerator.NPU) setOf(accelerator, Accelerator.NONE) else setOf(accelerator)

private fun withCpu(accelerator: Accelerator) = setOf(accelerator, Accelerator.CPU)
