// @NAME@ for LiteRT's CompiledModel. Generated together with the files that it loads; do not edit.
package @PACKAGE@

import android.content.res.AssetManager
import com.google.ai.edge.litert.Accelerator
import com.google.ai.edge.litert.CompiledModel

/**
 * @DESCRIPTION@
 *
 * One instance must not be used by several threads at once.
 *
 * @param assets The app's assets, with the files of [asset] in them.
 * @param accelerator Where to run; what it can't run falls back to the CPU.
 */
class @CLASS@(assets: AssetManager, accelerator: Accelerator = Accelerator.CPU) : AutoCloseable {
  /** The outputs of one inference. */
  class Result(@RESULT@)

  private val model =
    CompiledModel.create(
      assets,
      asset(accelerator),
      if (accelerator == Accelerator.CPU) CompiledModel.Options(Accelerator.CPU)
      else CompiledModel.Options(accelerator, Accelerator.CPU),
    )
  private val inputs = INPUTS.keys.associateWith { model.createInputBuffer(it, SIGNATURE) }
  private val outputs = OUTPUTS.keys.associateWith { model.createOutputBuffer(it, SIGNATURE) }

  /**
   * Runs one inference.
   *
@PARAMETERS@
   */
  fun run(@ARGUMENTS@): Result {
@WRITES@
    model.run(inputs, outputs, SIGNATURE)
    return Result(
@READS@
    )
  }

  /** Runs one inference on values by input name; returns values by output name. */
  fun run(values: Map<String, FloatArray>): Map<String, FloatArray> {
    val result = run(
@FROM_MAP@
    )
    return mapOf(
@TO_MAP@
    )
  }

  override fun close() {
    inputs.values.forEach { it.close() }
    outputs.values.forEach { it.close() }
    model.close()
  }

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

    private fun check(name: String, size: Int, expected: Int) =
      require(size == expected) { "$name must have $expected elements, not $size" }
@HELPERS@
  }
}
