// @NAME@ for LiteRT's CompiledModel. Generated together with the files that it loads; do not edit.
package @PACKAGE@

@IMPORTS@

/**
 * @DESCRIPTION@
 *
 * It may be used by several threads: inferences run one after the other, on a thread of its own.
 * Loading takes long, so construct it on a background thread.
 *
 * @param context The app.
 * @param accelerators Where to run, in order of preference: `listOf(Accelerator.NPU)` runs on the
 *   NPU or not at all, `listOf(Accelerator.NPU, Accelerator.CPU)` on the CPU where there is no NPU.
 *   [placement] says which it is.
 * @param inPart Whether an accelerator that runs only some of the operators may leave the others to
 *   the CPU.
 * @param path A file to load in place of the app's assets, of the same inputs and outputs.
 * @throws StudentException.NoAccelerator None of the accelerators runs the file.
 * @throws StudentException.NotLoaded The file is missing, or LiteRT did not start.
 */
class @CLASS@(
  context: Context,
  accelerators: List<Accelerator> = listOf(Accelerator.CPU),
  inPart: Boolean = false,
  path: String? = null,
) : AutoCloseable {
  /** The outputs of one inference. */
  class Result(@RESULT@)

  private val session =
    Session(
      context,
      if (path == null) Source.Assets(::asset) else Source.Path(path),
      accelerators,
      inPart,
      SIGNATURE,
      INPUTS.keys,
      OUTPUTS.keys,
    )

  /** Where it runs, and what did not. */
  val placement: Placement
    get() = session.placement

  /**
   * Runs one inference, and waits for it.
   *
@PARAMETERS@
   * @throws StudentException.NotRun LiteRT failed.
   */
  fun run(@ARGUMENTS@): Result = session.result(runAsync(@NAMES@))

  /** Runs one inference later, after those before it. The arrays must stay as they are until then. */
  fun runAsync(@ARGUMENTS@): CompletableFuture<Result> {
@SIZES@
    return session.submit({ write(it, @NAMES@) }, ::read)
  }
@OVERLOADS@
  /** Runs one inference on values by input name; returns values by output name. */
  fun run(values: Map<String, FloatArray>): Map<String, FloatArray> {
    val result = run(
@FROM_MAP@
    )
    return mapOf(
@TO_MAP@
    )
  }

  /** Frees what LiteRT holds, once the inferences asked for are done. It can't run after that. */
  override fun close() = session.close()

  companion object {
    /** The signature of the file. */
    const val SIGNATURE = "serving_default"

    /** Shapes of the inputs by name, batch axis first. */
    val INPUTS: Map<String, List<Int>> = mapOf(@INPUT_SHAPES@)

    /** Shapes of the outputs by name, batch axis first. */
    val OUTPUTS: Map<String, List<Int>> = mapOf(@OUTPUT_SHAPES@)

    /** Names of the classes, in the order of the scores. */
    val LABELS: List<String> = listOf(@LABELS@)

    /** The asset that suits an accelerator best. */
    fun asset(accelerator: Accelerator): String =
      when (accelerator) {
@ASSETS@
        else -> @ASSET@
      }

    /** The classes of the highest scores, best first. */
    fun best(scores: FloatArray, count: Int = 3): List<Pair<String, Float>> =
      scores.indices
        .sortedByDescending { scores[it] }
        .take(count)
        .map { (LABELS.getOrNull(it) ?: it.toString()) to scores[it] }

    private fun write(inputs: Map<String, TensorBuffer>, @ARGUMENTS@) {
@WRITES@
    }

    private fun read(outputs: Map<String, TensorBuffer>) =
      Result(
@READS@
      )

    private fun check(name: String, size: Int, expected: Int) =
      require(size == expected) { "$name must have $expected elements, not $size" }
@HELPERS@
  }
}
