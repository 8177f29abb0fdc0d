// Plays a sound to a kit's classes. The file itself is run by whom this program talks to.
package listening

import android.content.Context
import android.content.res.AssetManager
import android.media.Room
import com.example.student.FrontEnd
import com.example.student.Listener
import com.example.student.Microphone
import com.example.student.Student
import com.google.ai.edge.litert.Device
import java.io.DataInputStream
import java.io.File

private fun text(array: ByteArray) = array.joinToString(" ")

/** Prints the inputs of a step, and reads its outputs. */
private fun asked(inputs: Map<String, Any?>): Map<String, Any?> {
  println("step " + inputs.map { (name, it) -> "$name:${text(it as ByteArray)}" }.joinToString(";"))
  return readln().split(";").associate { port ->
    val (name, numbers) = port.split(":")
    name to numbers.split(" ").map { it.toByte() }.toByteArray()
  }
}

private fun features(sound: ShortArray) {
  val frontEnd = FrontEnd()
  for (time in 0 until 2) {
    val row = FloatArray(FrontEnd.BANDS)
    for (start in 0..sound.size - FrontEnd.STEP step FrontEnd.STEP)
      if (frontEnd.process(sound, start, row, 0)) println("features " + row.joinToString(" "))
    frontEnd.reset()
  }
}

private fun refused(listener: Listener) {
  try {
    Microphone(listener, { println("detected $it") }, { println("failed: $it") }).close()
    println("not refused")
  } catch (error: java.io.IOException) {
    println("refused: ${error.message}")
  }
}

fun main(args: Array<String>) {
  val bytes = File(args[0])
  DataInputStream(bytes.inputStream().buffered()).use { file ->
    Room.sound = ShortArray((bytes.length() / 2).toInt()) { file.readShort() }
  }
  features(Room.sound)
  AssetManager.names = setOf("student.tflite")
  Device.file = ::asked
  Student(Context()).use { student ->
    val listener = Listener(student)
    // The second microphone starts anew.
    for (time in 0 until 2) {
      println("listening")
      val ended = java.util.concurrent.CountDownLatch(1)
      val microphone =
        Microphone(
          listener,
          { println("detected $it") },
          {
            println("failed: ${it.message}")
            ended.countDown()
          },
        )
      ended.await()
      microphone.close()
    }
    Room.rate = 44100
    refused(listener)
    Room.rate = null
    Room.permitted = false
    refused(listener)
    Room.smallestBuffer = -2
    refused(listener)
    println("open: ${Room.open}")
  }
}
