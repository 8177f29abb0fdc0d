package android.app

import android.content.Context
import android.os.Bundle
import android.view.View

open class Activity : Context() {
  open fun onCreate(savedInstanceState: Bundle?) {}

  fun setContentView(view: View) = Unit

  fun runOnUiThread(action: () -> Unit) = action()
}
