package @PACKAGE@

import kotlin.math.PI
import kotlin.math.cos
import kotlin.math.ln
import kotlin.math.sin

/** The features of a sound that the student was trained on: a log-mel spectrogram. */
class FrontEnd {
  private val recent = ShortArray(KEPT)
  private var heard = 0
  private val real = FloatArray(HALF)
  private val imaginary = FloatArray(HALF)
  private val energies = FloatArray(HALF + 1)

  /** Starts anew. */
  fun reset() {
    heard = 0
  }

  /**
   * Takes [STEP] samples, from `offset` on. Returns whether they complete a frame, whose [BANDS]
   * features it writes from `place` on.
   */
  fun process(samples: ShortArray, offset: Int, features: FloatArray, place: Int): Boolean {
    if (heard == KEPT) {
      recent.copyInto(recent, 0, STEP)
      heard -= STEP
    }
    samples.copyInto(recent, heard, offset, offset + STEP)
    heard += STEP
    if (heard < KEPT) return false
    load()
    transform()
    measure()
    var next = 0
    for (band in 0 until BANDS) {
      var total = 0f
      for (i in 0 until COUNTS[band]) total += WEIGHTS[next++] * energies[FIRST[band] + i]
      features[place + band] = ln(total + 1e-6f)
    }
    return true
  }

  /** The frame as complex numbers, in the order that the transform needs, zeros after it. */
  private fun load() {
    var reversed = 0
    for (i in 0 until HALF) {
      real[reversed] = sample(2 * i)
      imaginary[reversed] = sample(2 * i + 1)
      var bit = HALF / 2
      while (bit > 0 && reversed and bit != 0) {
        reversed = reversed xor bit
        bit /= 2
      }
      reversed = reversed or bit
    }
  }

  private fun sample(i: Int) = if (i < WINDOW) HANN[i] * (recent[i] / 32768f) else 0f

  /** The fast Fourier transform, in place. */
  private fun transform() {
    var size = 2
    while (size <= HALF) {
      for (start in 0 until HALF step size) {
        for (i in 0 until size / 2) {
          val cosine = COSINES[i * (POINTS / size)]
          val sine = SINES[i * (POINTS / size)]
          val a = start + i
          val b = a + size / 2
          val x = cosine * real[b] + sine * imaginary[b]
          val y = cosine * imaginary[b] - sine * real[b]
          real[b] = real[a] - x
          imaginary[b] = imaginary[a] - y
          real[a] += x
          imaginary[a] += y
        }
      }
      size *= 2
    }
  }

  /** The energy of each frequency, from the transforms of the even and of the odd samples. */
  private fun measure() {
    for (i in 0..HALF) {
      val a = i % HALF
      val b = (HALF - i) % HALF
      val cosine = if (i < HALF) COSINES[i] else -1f
      val sine = if (i < HALF) SINES[i] else 0f
      val oddReal = (imaginary[a] + imaginary[b]) / 2
      val oddImaginary = (real[b] - real[a]) / 2
      val x = (real[a] + real[b]) / 2 + cosine * oddReal + sine * oddImaginary
      val y = (imaginary[a] - imaginary[b]) / 2 + cosine * oddImaginary - sine * oddReal
      energies[i] = x * x + y * y
    }
  }

  companion object {
    /** Samples a second. */
    const val SAMPLE_RATE = @RATE@

    /** Features of a frame. */
    const val BANDS = @BANDS@

    /** Samples from one frame to the next. */
    const val STEP = @STEP@

    /** Samples of a frame. */
    const val WINDOW = @WINDOW@
    private const val POINTS = @POINTS@
    private const val HALF = POINTS / 2
    private const val KEPT = (WINDOW + STEP - 1) / STEP * STEP

    private val HANN =
      FloatArray(WINDOW) { (0.5 - 0.5 * cos(2 * PI * it / (WINDOW / 2 * 2))).toFloat() }
    private val COSINES = FloatArray(HALF) { cos(2 * PI * it / POINTS).toFloat() }
    private val SINES = FloatArray(HALF) { sin(2 * PI * it / POINTS).toFloat() }

    /** First frequency and number of frequencies of each band, and their weights, band by band. */
    private val FIRST = intArrayOf(@FIRST@)
    private val COUNTS = intArrayOf(@COUNTS@)
    private val WEIGHTS = weights()

    private fun weights() =
      floatArrayOf(
@WEIGHTS@
      )
  }
}
