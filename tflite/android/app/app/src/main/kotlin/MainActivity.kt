package @PACKAGE@

import android.app.Activity
import android.os.Bundle
import android.os.SystemClock
import android.widget.Button
import android.widget.LinearLayout
import android.widget.ScrollView
import android.widget.TextView
import com.google.ai.edge.litert.Accelerator
import kotlin.concurrent.thread
import kotlin.math.abs
import org.json.JSONObject

/** Runs the student's stored test vectors where the tapped button says, and shows the results. */
class MainActivity : Activity() {
  private lateinit var text: TextView
  private lateinit var column: LinearLayout

  override fun onCreate(savedInstanceState: Bundle?) {
    super.onCreate(savedInstanceState)
    text = TextView(this)
    column = LinearLayout(this)
    column.orientation = LinearLayout.VERTICAL
    for (accelerator in listOf(Accelerator.CPU, Accelerator.GPU, Accelerator.NPU)) {
      column.addView(button(accelerator.name, listOf(accelerator)))
    }
    val all = listOf(Accelerator.NPU, Accelerator.GPU, Accelerator.CPU)
    column.addView(button("NPU, else GPU, else CPU", all))
    column.addView(text)
    val scroll = ScrollView(this)
    scroll.addView(column)
    setContentView(scroll)
  }

  private fun button(label: String, accelerators: List<Accelerator>): Button {
    val button = Button(this)
    button.text = label
    button.setOnClickListener { start(accelerators) }
    return button
  }

  private fun start(accelerators: List<Accelerator>) {
    text.text = "..."
    thread {
      val report =
        try {
          @CLASS@(this, accelerators).use { @SHOW@prove(it) }
        } catch (error: StudentException) {
          "${error.message}"
        }
      runOnUiThread { text.text = report }
    }
  }

  /** Runs every vector, and reports how far the outputs are from the stored ones. */
  private fun prove(student: @CLASS@): String {
    val vectors = JSONObject(assets.open("test_vectors.json").bufferedReader().readText())
    val placement = student.placement
    val lines = mutableListOf("runs on $placement", @CLASS@.asset(placement.accelerator))
    lines += "inputs: " + vectors.getString("source")
    for (i in 0 until vectors.getInt("count")) {
      val values = @CLASS@.INPUTS.keys.associateWith { floats(vectors, "inputs", it, i) }
      val start = SystemClock.elapsedRealtimeNanos()
      val outputs = student.run(values)
      val milliseconds = (SystemClock.elapsedRealtimeNanos() - start) / 1e6
      lines += "vector $i: %.2f ms".format(milliseconds)
      for ((name, got) in outputs) {
        val expected = floats(vectors, "outputs", name, i)
        val largest = got.indices.maxOf { abs(got[it] - expected[it]) }
        lines += "  $name: off by $largest"
        if (got.size == @CLASS@.LABELS.size) lines += "  ${@CLASS@.best(got)}"
      }
    }
    return lines.joinToString("\n")
  }

  private fun floats(vectors: JSONObject, side: String, name: String, i: Int): FloatArray {
    val numbers = vectors.getJSONObject(side).getJSONArray(name).getJSONArray(i)
    return FloatArray(numbers.length()) { numbers.getDouble(it).toFloat() }
  }
}
