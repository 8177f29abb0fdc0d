// LiteRT 2.3's Kotlin API, as far as the generated sources use it, on a device that tests make up.
package com.google.ai.edge.litert

import android.content.Context
import android.content.res.AssetManager
import java.util.Collections

/** The device: what it has, what runs a file whole, and what the file computes. */
object Device {
  var hasNpu = false
  var hasGpu = false
  var whole: Set<Accelerator> = setOf()
  var file: (Map<String, Any?>) -> Map<String, Any?> = { mapOf() }
  var thread: Thread? = null

  /** What was opened and not closed, by the threads of several students. */
  val open: MutableList<Any> = Collections.synchronizedList(mutableListOf<Any>())
}

enum class Accelerator(val value: Int) {
  NONE(0),
  CPU(1),
  GPU(2),
  NPU(3),
}

enum class Status {
  ErrorCompilation,
  ErrorRuntimeFailure,
}

class LiteRtException(val status: Status, message: String) : Exception(message)

abstract class JniHandle : AutoCloseable {
  init {
    Device.open += this
  }

  protected fun assertNotDestroyed() {
    check(this in Device.open) { "The handle has been destroyed." }
    Device.thread = Device.thread ?: Thread.currentThread()
    check(Device.thread === Thread.currentThread()) { "another thread" }
  }

  final override fun close() {
    Device.open -= this
  }
}

interface NpuCompatibilityChecker {
  fun isDeviceSupported(): Boolean

  companion object {
    val Default =
      object : NpuCompatibilityChecker {
        override fun isDeviceSupported() = Device.hasNpu
      }
  }
}

interface NpuAcceleratorProvider {
  fun isDeviceSupported(): Boolean

  fun isLibraryReady(): Boolean

  suspend fun downloadLibrary()

  fun getLibraryDir(): String
}

class BuiltinNpuAcceleratorProvider
@JvmOverloads
constructor(
  private val context: Context,
  private val npuCompatibilityChecker: NpuCompatibilityChecker = NpuCompatibilityChecker.Default,
) : NpuAcceleratorProvider {
  override fun isDeviceSupported() = npuCompatibilityChecker.isDeviceSupported()

  override fun isLibraryReady() = true

  override suspend fun downloadLibrary() {}

  override fun getLibraryDir() = context.applicationInfo.nativeLibraryDir
}

class Environment private constructor(private val npu: Boolean) : JniHandle() {
  enum class Option {
    CompilerPluginLibraryDir,
    DispatchLibraryDir,
  }

  fun getAvailableAccelerators(): Set<Accelerator> {
    assertNotDestroyed()
    return setOfNotNull(
      Accelerator.NPU.takeIf { npu },
      Accelerator.GPU.takeIf { Device.hasGpu },
      Accelerator.CPU,
    )
  }

  companion object {
    @JvmOverloads
    @JvmStatic
    fun create(
      context: Context,
      options: Map<Option, String> = mapOf(),
      enableCompilerCache: Boolean = true,
    ): Environment = Environment(Option.DispatchLibraryDir in options)

    /** Without libraries of a vendor, LiteRT has no NPU. */
    @JvmOverloads
    @JvmStatic
    fun create(
      context: Context,
      npuAcceleratorProvider: NpuAcceleratorProvider,
      options: Map<Option, String> = mapOf(),
      enableCompilerCache: Boolean = true,
    ): Environment =
      Environment(npuAcceleratorProvider.isDeviceSupported() && npuAcceleratorProvider.isLibraryReady())
  }
}

class TensorBuffer internal constructor() : JniHandle() {
  internal var data: Any? = null
    set(value) {
      assertNotDestroyed()
      field = value
    }

  fun writeInt(data: IntArray) {
    this.data = data.copyOf()
  }

  fun writeFloat(data: FloatArray) {
    this.data = data.copyOf()
  }

  fun writeInt8(data: ByteArray) {
    this.data = data.copyOf()
  }

  fun writeBoolean(data: BooleanArray) {
    this.data = data.copyOf()
  }

  fun writeLong(data: LongArray) {
    this.data = data.copyOf()
  }

  fun readInt(): IntArray = data as IntArray

  fun readFloat(): FloatArray = data as FloatArray

  fun readInt8(): ByteArray = data as ByteArray

  fun readBoolean(): BooleanArray = data as BooleanArray

  fun readLong(): LongArray = data as LongArray
}

class CompiledModel private constructor() : JniHandle() {
  class Options constructor(internal val accelerators: Set<Accelerator>) {
    constructor(vararg accelerators: Accelerator) : this(setOf(*accelerators))

    companion object {
      @JvmStatic val CPU = Options(Accelerator.CPU)
    }
  }

  fun createInputBuffer(inputName: String, signature: String = ""): TensorBuffer {
    assertNotDestroyed()
    return TensorBuffer()
  }

  fun createOutputBuffer(outputName: String, signature: String = ""): TensorBuffer {
    assertNotDestroyed()
    return TensorBuffer()
  }

  fun run(
    inputs: Map<String, TensorBuffer>,
    outputs: Map<String, TensorBuffer>,
    signature: String = "",
  ) {
    assertNotDestroyed()
    val computed = Device.file(inputs.mapValues { it.value.data })
    for ((name, buffer) in outputs) buffer.data = computed.getValue(name)
  }

  companion object {
    /** As LiteRT does: the CPU is added to the NPU alone, and takes what others leave over. */
    private fun compiled(options: Options): CompiledModel {
      val asked = options.accelerators
      val all = if (asked == setOf(Accelerator.NPU)) asked + Accelerator.CPU else asked
      if (Accelerator.CPU !in all && all.none(Device.whole::contains))
        throw LiteRtException(Status.ErrorCompilation, "Some ops are not accelerated.")
      return CompiledModel()
    }

    @JvmOverloads
    @JvmStatic
    fun create(
      assetManager: AssetManager,
      assetName: String,
      options: Options = Options.CPU,
      optionalEnv: Environment? = null,
    ): CompiledModel = compiled(options)

    @JvmOverloads
    @JvmStatic
    fun create(
      filePath: String,
      options: Options = Options.CPU,
      optionalEnv: Environment? = null,
    ): CompiledModel = compiled(options)
  }
}
