package @PACKAGE@

import android.content.Context
import com.google.ai.edge.litert.Accelerator
import com.google.ai.edge.litert.BuiltinNpuAcceleratorProvider
import com.google.ai.edge.litert.CompiledModel
import com.google.ai.edge.litert.Environment
import com.google.ai.edge.litert.TensorBuffer
import java.io.File
import java.io.IOException
import java.util.concurrent.CompletableFuture
import java.util.concurrent.CompletionException
import java.util.concurrent.Executors

/** Where LiteRT finds the file. */
internal sealed class Source {
  /** Assets of the app, one for each accelerator. */
  class Assets(val name: (Accelerator) -> String) : Source()

  /** One file outside, such as a downloaded one. */
  class Path(val path: String) : Source()
}

/**
 * A compiled file with its buffers, which one thread of its own loads, runs and closes: what runs
 * on the GPU belongs to the thread that made it.
 */
internal class Session(
  context: Context,
  source: Source,
  wanted: List<Accelerator>,
  inPart: Boolean,
  private val signature: String,
  inputNames: Set<String>,
  outputNames: Set<String>,
) : AutoCloseable {
  private val thread = Executors.newSingleThreadExecutor { Thread(it, "student") }
  private val loaded: Loaded

  init {
    try {
      val load = { Loaded(context, source, wanted, inPart, signature, inputNames, outputNames) }
      loaded = result(CompletableFuture.supplyAsync(load, thread))
    } catch (error: Throwable) {
      thread.shutdown()
      throw error
    }
  }

  val placement: Placement
    get() = loaded.placement

  /** Writes inputs, runs the file and reads outputs, after what was asked for earlier. */
  fun <Result> submit(
    write: (Map<String, TensorBuffer>) -> Unit,
    read: (Map<String, TensorBuffer>) -> Result,
  ): CompletableFuture<Result> {
    check(!thread.isShutdown) { "the student is closed" }
    return CompletableFuture.supplyAsync(
      {
        try {
          write(loaded.inputs)
          loaded.model.run(loaded.inputs, loaded.outputs, signature)
          read(loaded.outputs)
        } catch (error: Exception) {
          throw StudentException.NotRun(error)
        }
      },
      thread,
    )
  }

  /** Waits for what was submitted, and throws what it threw. */
  fun <Result> result(future: CompletableFuture<Result>): Result =
    try {
      future.join()
    } catch (error: CompletionException) {
      throw error.cause ?: error
    }

  /** Frees everything, once what was asked for earlier is done. */
  override fun close() {
    if (thread.isShutdown) return
    thread.execute(loaded::close)
    thread.shutdown()
  }
}

private class Loaded(
  context: Context,
  source: Source,
  wanted: List<Accelerator>,
  inPart: Boolean,
  signature: String,
  inputNames: Set<String>,
  outputNames: Set<String>,
) : AutoCloseable {
  private val closing = ArrayDeque<AutoCloseable>()
  val model: CompiledModel
  val placement: Placement
  val inputs: Map<String, TensorBuffer>
  val outputs: Map<String, TensorBuffer>

  init {
    try {
      val environment = kept(environment(context, wanted))
      val (compiled, where) =
        place(wanted, inPart, environment.getAvailableAccelerators()) { accelerator, set ->
          compiled(context, source, accelerator, set, environment)
        }
      model = kept(compiled)
      placement = where
      inputs = inputNames.associateWith { kept(model.createInputBuffer(it, signature)) }
      outputs = outputNames.associateWith { kept(model.createOutputBuffer(it, signature)) }
    } catch (error: Throwable) {
      close()
      throw when (error) {
        is StudentException,
        is IllegalArgumentException -> error
        else -> StudentException.NotLoaded("LiteRT did not start: ${error.message}", error)
      }
    }
  }

  private fun <Resource : AutoCloseable> kept(resource: Resource) = resource.also(closing::addFirst)

  override fun close() = closing.forEach(AutoCloseable::close)
}

/** The NPU's libraries are looked for only where it is wanted. */
private fun environment(context: Context, wanted: List<Accelerator>): Environment =
  if (Accelerator.NPU in wanted) Environment.create(context, BuiltinNpuAcceleratorProvider(context))
  else Environment.create(context)

private fun compiled(
  context: Context,
  source: Source,
  accelerator: Accelerator,
  set: Set<Accelerator>,
  environment: Environment,
): CompiledModel {
  val options = CompiledModel.Options(set)
  return when (source) {
    is Source.Path -> {
      if (!File(source.path).canRead())
        throw StudentException.NotLoaded("there is no file to read at ${source.path}", null)
      CompiledModel.create(source.path, options, environment)
    }
    is Source.Assets -> {
      val name = source.name(accelerator)
      try {
        context.assets.open(name).close()
      } catch (error: IOException) {
        throw StudentException.NotLoaded("the app has no asset $name", error)
      }
      CompiledModel.create(context.assets, name, options, environment)
    }
  }
}
