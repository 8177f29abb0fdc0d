package @PACKAGE@

import android.annotation.SuppressLint
import android.media.AudioFormat
import android.media.AudioRecord
import android.media.MediaRecorder
import java.io.IOException
import kotlin.concurrent.thread

/**
 * Gives what the microphone hears to a [Listener], on a thread of its own.
 *
 * The app asks the user for the permission RECORD_AUDIO first.
 *
 * @param listener What listens. It is reset, and used by nothing else until this is closed.
 * @param detected Takes each class that is detected, on that thread.
 * @param failed Takes what ended the listening, on that thread.
 * @throws IOException There is no microphone of [FrontEnd.SAMPLE_RATE], or no permission.
 */
class Microphone(
  private val listener: Listener,
  private val detected: (Int) -> Unit,
  private val failed: (Exception) -> Unit,
) : AutoCloseable {
  @Volatile private var listening = true
  private val record = opened()
  private val thread = thread(name = "microphone") { listen() }

  /** Stops, and waits for the last samples. */
  override fun close() {
    listening = false
    thread.join()
  }

  private fun listen() {
    try {
      val samples = ShortArray(FrontEnd.STEP)
      listener.reset()
      record.startRecording()
      while (listening && fill(samples)) {
        val word = listener.hear(samples)
        if (word != Listener.NOTHING) detected(word)
      }
    } catch (error: Exception) {
      failed(error)
    } finally {
      record.release()
    }
  }

  /** Waits for whole steps of samples. Returns false where it is closed meanwhile. */
  private fun fill(samples: ShortArray): Boolean {
    var filled = 0
    while (filled < samples.size) {
      val count = record.read(samples, filled, samples.size - filled)
      if (count <= 0) throw IOException("the microphone gave no samples, but $count")
      filled += count
      if (!listening) return false
    }
    return true
  }

  private companion object {
    @SuppressLint("MissingPermission")
    fun opened(): AudioRecord {
      val channel = AudioFormat.CHANNEL_IN_MONO
      val encoding = AudioFormat.ENCODING_PCM_16BIT
      val least = AudioRecord.getMinBufferSize(FrontEnd.SAMPLE_RATE, channel, encoding)
      if (least <= 0) throw IOException("no microphone records at ${FrontEnd.SAMPLE_RATE} Hz")
      // Half a second, at 2 bytes a sample, is kept while the student is busy.
      val size = maxOf(least, FrontEnd.SAMPLE_RATE)
      val source = MediaRecorder.AudioSource.VOICE_RECOGNITION
      val record = AudioRecord(source, FrontEnd.SAMPLE_RATE, channel, encoding, size)
      if (record.state == AudioRecord.STATE_INITIALIZED && record.sampleRate == FrontEnd.SAMPLE_RATE)
        return record
      val rate = record.sampleRate
      record.release()
      throw IOException(
        "the microphone records at $rate Hz, not at ${FrontEnd.SAMPLE_RATE}, or isn't permitted"
      )
    }
  }
}
