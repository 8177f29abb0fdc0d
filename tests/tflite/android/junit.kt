// JUnit 4, as far as the kit's tests use it, and a program that runs them.
package org.junit

annotation class Test

fun interface ThrowingRunnable {
  fun run()
}

object Assert {
  fun assertEquals(expected: Any?, actual: Any?) = assertTrue("$expected, not $actual", expected == actual)

  fun assertSame(expected: Any?, actual: Any?) = assertTrue("$expected, not $actual", expected === actual)

  fun assertTrue(condition: Boolean) = assertTrue("false", condition)

  fun assertTrue(message: String, condition: Boolean) {
    if (!condition) throw AssertionError(message)
  }

  fun assertArrayEquals(expected: FloatArray, actual: FloatArray, delta: Float) {
    val same = expected.size == actual.size
    val close = same && expected.indices.all { Math.abs(expected[it] - actual[it]) <= delta }
    assertTrue("${expected.toList()}, not ${actual.toList()}", close)
  }

  fun assertArrayEquals(expected: IntArray, actual: IntArray) =
    assertEquals(expected.toList(), actual.toList())

  fun assertArrayEquals(expected: LongArray, actual: LongArray) =
    assertEquals(expected.toList(), actual.toList())

  fun assertArrayEquals(expected: ByteArray, actual: ByteArray) =
    assertEquals(expected.toList(), actual.toList())

  fun <T : Throwable> assertThrows(expected: Class<T>, block: ThrowingRunnable): T {
    try {
      block.run()
    } catch (error: Throwable) {
      assertTrue("$error, not $expected", expected.isInstance(error))
      return expected.cast(error)
    }
    throw AssertionError("nothing was thrown, not $expected")
  }
}

/** Runs the tests of the classes named, and prints how each ends. */
fun main(names: Array<String>) {
  for (name in names) {
    val type = Class.forName(name)
    for (method in type.declaredMethods.filter { it.isAnnotationPresent(Test::class.java) }) {
      val failure = runCatching { method.invoke(type.getDeclaredConstructor().newInstance()) }
      println("$name.${method.name}: ${failure.exceptionOrNull()?.cause ?: "passed"}")
    }
  }
}
