package @PACKAGE@

import android.app.Activity
import android.graphics.BitmapFactory
import android.widget.ImageView
import android.widget.LinearLayout

/** Shows the picture `sample.png` of the app's assets, and what the student finds on it. */
internal fun Activity.show(student: @CLASS@, under: LinearLayout) {
  val picture = assets.open("sample.png").use { BitmapFactory.decodeStream(it) }
  val drawn = student.draw(checkNotNull(picture) { "sample.png isn't a picture" })
  runOnUiThread {
    val view = ImageView(this)
    view.setImageBitmap(drawn)
    view.adjustViewBounds = true
    under.addView(view, 0)
  }
}
