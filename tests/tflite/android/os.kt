package android.os

class Bundle

object SystemClock {
  fun elapsedRealtimeNanos(): Long = System.nanoTime()
}

object Build {
  val ID: String = ""
  val SOC_MODEL: String = ""
  val SOC_MANUFACTURER: String = ""
  val HARDWARE: String = ""

  object VERSION {
    val SDK_INT: Int = 35
  }

  object VERSION_CODES {
    const val S: Int = 31
    const val TIRAMISU: Int = 33
  }
}
