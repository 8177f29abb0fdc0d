package @PACKAGE@

/**
 * When the app acts on the scores that the student gives step by step.
 *
 * The scores of the last [SMOOTHING] steps are averaged. Of the classes whose mean reaches their
 * threshold, the one with the largest mean is detected. For [REFRACTORY] steps after that, there is
 * no other detection.
 */
class Decision {
    private val recent = Array(WORDS.size) { FloatArray(SMOOTHING) }
    private var step = 0
    private var wait = 0

    /** Starts anew. */
    fun reset() {
        step = 0
        wait = 0
    }

    /** Takes the scores of a step, one a class. Returns the class that is detected, or -1. */
    fun update(scores: FloatArray): Int {
        for ((word, kept) in recent.withIndex()) {
            kept.copyInto(kept, 0, 1)
            kept[SMOOTHING - 1] = scores[WORDS[word]]
        }
        if (step < WARM_UP + SMOOTHING - 1) {
            step++
            return -1
        }
        if (wait > 0) {
            wait--
            return -1
        }
        var best = -1
        var largest = 0.0
        for ((word, kept) in recent.withIndex()) {
            var total = 0.0
            for (score in kept) total += score.toDouble()
            val mean = total / SMOOTHING
            if (mean >= THRESHOLDS[word] && (best < 0 || mean > largest)) {
                best = WORDS[word]
                largest = mean
            }
        }
        if (best >= 0) wait = REFRACTORY
        return best
    }

    companion object {
        const val SMOOTHING = @SMOOTHING@
        const val REFRACTORY = @REFRACTORY@

        /** Steps after a start that say nothing yet. */
        const val WARM_UP = @WARM_UP@
        private val WORDS = intArrayOf(@WORDS@)
        private val THRESHOLDS = doubleArrayOf(@THRESHOLDS@)
    }
}
