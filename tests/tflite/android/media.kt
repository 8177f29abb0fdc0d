// Android's microphone, as far as the generated sources use it, which hears what tests make up.
package android.media

/** What is recorded. */
object Room {
  var sound = ShortArray(0)
  var rate: Int? = null
  var permitted = true
  var smallestBuffer = 2048
  var open = 0
}

class AudioFormat {
  companion object {
    const val CHANNEL_IN_MONO = 16
    const val ENCODING_PCM_16BIT = 2
  }
}

class MediaRecorder {
  object AudioSource {
    const val VOICE_RECOGNITION = 6
  }
}

class AudioRecord(
  source: Int,
  rate: Int,
  channels: Int,
  encoding: Int,
  private val bytes: Int,
) {
  private var place = -1
  val state = if (Room.permitted) STATE_INITIALIZED else 0
  val sampleRate = Room.rate ?: rate

  init {
    require(source == MediaRecorder.AudioSource.VOICE_RECOGNITION)
    require(channels == AudioFormat.CHANNEL_IN_MONO && encoding == AudioFormat.ENCODING_PCM_16BIT)
    require(bytes >= Room.smallestBuffer)
    Room.open++
  }

  fun startRecording() {
    check(state == STATE_INITIALIZED)
    place = 0
  }

  /** Waits for all samples asked for, or gives fewer; a negative number where it fails. */
  fun read(samples: ShortArray, offset: Int, size: Int): Int {
    check(place >= 0 && offset + size <= samples.size)
    val count = minOf(size, 77, Room.sound.size - place)
    if (count == 0) return ERROR_DEAD_OBJECT
    Room.sound.copyInto(samples, offset, place, place + count)
    place += count
    return count
  }

  fun release() {
    Room.open--
    place = -1
  }

  companion object {
    const val STATE_INITIALIZED = 1
    const val ERROR_DEAD_OBJECT = -6

    fun getMinBufferSize(rate: Int, channels: Int, encoding: Int): Int {
      require(channels == AudioFormat.CHANNEL_IN_MONO)
      require(encoding == AudioFormat.ENCODING_PCM_16BIT)
      return if (rate < 4000) -2 else Room.smallestBuffer
    }
  }
}
