package android.content

import android.content.res.AssetManager
import java.io.File

class ApplicationInfo(val nativeLibraryDir: String)

open class Context {
  val assets: AssetManager = AssetManager()
  val applicationInfo: ApplicationInfo = ApplicationInfo("")
  val applicationContext: Context = this
  val cacheDir: File? = null
}
