"""Names and texts made safe for C++ and Kotlin."""

import re

from keras_distill.tflite import reserved_names


def cpp_identifier(name: str) -> str:
    """A name as a lower-case C++ identifier, neither a keyword nor reserved."""
    safe = re.sub(r"\W+", "_", str(name), flags=re.ASCII).strip("_").lower()
    safe = re.sub(r"_{2,}", "_", safe)
    if not safe or safe[0].isdigit():
        safe = f"student_{safe}".rstrip("_")
    return f"{safe}_student" if reserved_names.is_reserved(safe) else safe


def camel_case(name: str) -> str:
    """A name in camel case, starting with a letter."""
    words = re.findall(r"[A-Za-z0-9]+", str(name))
    # Numbers stay separate: `a_1` and `a1` are two names.
    joined = "".join(f"_{w}" if w[0].isdigit() else w[0].upper() + w[1:] for w in words)
    joined = joined.lstrip("_")
    return joined if joined[:1].isalpha() else f"X{joined}"


def c_string(text: str) -> str:
    """A text as a C++ string literal in UTF-8, with all that is unsafe escaped."""
    return '"' + "".join(_c_byte(byte) for byte in str(text).encode()) + '"'


def _c_byte(byte):
    character = chr(byte)
    # Octal escapes end after three digits; "?" could start a trigraph.
    if character in '"\\?' or not 32 <= byte < 127:
        return f"\\{byte:03o}"
    return character


def kotlin_string(text: str) -> str:
    """A text as a Kotlin string literal, with all that is unsafe escaped."""
    return '"' + "".join(_kotlin_unit(unit) for unit in _utf16(str(text))) + '"'


def _utf16(text):
    encoded = text.encode("utf-16-be", "surrogatepass")
    return [encoded[i] << 8 | encoded[i + 1] for i in range(0, len(encoded), 2)]


def _kotlin_unit(unit):
    character = chr(unit)
    if character in '"\\$' or not 32 <= unit < 127:
        return f"\\u{unit:04X}"
    return character


#: Words that can't name anything in Kotlin.
KOTLIN_KEYWORDS = frozenset(
    """
    as break class continue do else false for fun if in interface is null object package return
    super this throw true try typealias typeof val var when while
    """.split()  # noqa: SIM905
)


#: Types of Kotlin, of Java and of the kit, which its sources use.
_KOTLIN_TYPES = frozenset(
    """
    Accelerator Activity Any Array ArrayDeque AssetManager AutoCloseable Bitmap BitmapFactory
    Boolean BooleanArray Box BuildConfig BuiltinNpuAcceleratorProvider Bundle Button Byte ByteArray
    ByteBuffer Canvas Char CharArray CharSequence Class ClassMap Closeable Collection Comparable
    CompiledModel Detection Detections ImageView Letterbox Paint Pictures Rect
    CompletableFuture CompletionException Context Double DoubleArray Enum Environment Error
    Exception Executors File Float FloatArray Function Inputs InputsTest Int IntArray
    IOException Iterable Iterator JSONArray JSONObject Lazy LinearLayout List Loaded Log Long
    LongArray MainActivity Map Math MutableList MutableMap MutableSet Nothing Number Object
    Options Override Pair Placement PlacementTest Process R Record Refusal Regex Result Runnable
    Runtime ScrollView Sequence Session Set Short ShortArray Source String StringBuilder
    StudentException StudentTest Suppress System SystemClock TensorBuffer TextView Thread
    Throwable Triple UByte UInt ULong Unit UShort View Void
    """.split()  # noqa: SIM905
)


def kotlin_class(name: str) -> str:
    """A name as that of a Kotlin class, none that its sources use otherwise."""
    safe = camel_case(name)
    return f"{safe}Student" if safe in _KOTLIN_TYPES else safe


#: What the Kotlin class calls its own members and the arguments of its lambdas.
_KOTLIN_MEMBERS = frozenset(
    "bytes inputs it model normalized outputs read session write".split()  # noqa: SIM905
)


def kotlin_identifier(name: str) -> str:
    """A name as a Kotlin identifier, neither a keyword nor one that the generated class uses."""
    if name in _KOTLIN_MEMBERS:
        return f"{name}_"
    if name in KOTLIN_KEYWORDS or not name.strip("_"):
        return f"`{name}`"
    return name
