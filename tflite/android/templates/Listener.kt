package @PACKAGE@

/**
 * From a microphone's samples to what is detected: front end, [student], its state and the decision.
 *
 * One thread at a time may use it.
 */
class Listener(private val student: @CLASS@) {
  private val frontEnd = FrontEnd()
  private val decision = Decision()
  private val frames = FloatArray(@SIZE@)
  private var filled = 0

  // The state that each step hands to the next. It starts from zeros.
@STATES@

  /** Forgets what was heard, for example where samples were lost. */
  fun reset() {
    frontEnd.reset()
    decision.reset()
    filled = 0
@RESETS@
  }

  /**
   * Takes [FrontEnd.STEP] samples, from `offset` on.
   *
   * @return The class that is detected, or [NOTHING].
   * @throws StudentException.NotRun LiteRT failed.
   */
  fun hear(samples: ShortArray, offset: Int = 0): Int {
    if (!frontEnd.process(samples, offset, frames, filled)) return NOTHING
    filled += FrontEnd.BANDS
    if (filled < frames.size) return NOTHING
    filled = 0
    val result = student.run(@GIVEN@)
@KEEPS@
    val scores = result.@OUTPUT@
    var heard = NOTHING
    for (start in 0 until scores.size step CLASSES) {
      val word = decision.update(scores.copyOfRange(start, start + CLASSES))
      if (word >= 0 && heard == NOTHING) heard = word
    }
    return heard
  }

  companion object {
    /** Where no class is detected. */
    const val NOTHING = -1
    private const val CLASSES = @CLASSES@
  }
}
