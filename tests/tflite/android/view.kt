package android.view

import android.content.Context

open class View(val context: Context) {
  fun setOnClickListener(action: (View) -> Unit) = Unit
}
