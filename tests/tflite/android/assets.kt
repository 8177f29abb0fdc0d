// What the generated Kotlin uses of Android, as declarations: enough to compile it without an SDK.
package android.content.res

import java.io.InputStream

class AssetManager {
  fun open(name: String): InputStream = TODO(name)
}
