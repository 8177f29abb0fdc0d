package android.widget

import android.content.Context
import android.graphics.Bitmap
import android.view.View

open class TextView(context: Context) : View(context) {
  var text: CharSequence = ""
}

class ImageView(context: Context) : View(context) {
  var adjustViewBounds = false

  fun setImageBitmap(bitmap: Bitmap) = Unit
}

class Button(context: Context) : TextView(context)

open class ViewGroup(context: Context) : View(context) {
  fun addView(view: View) = Unit

  fun addView(view: View, index: Int) = Unit
}

class LinearLayout(context: Context) : ViewGroup(context) {
  var orientation: Int = 0

  companion object {
    const val VERTICAL = 1
  }
}

class ScrollView(context: Context) : ViewGroup(context)
