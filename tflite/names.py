"""Names and texts made safe for C++ and Kotlin."""

import re

_CPP_KEYWORDS = frozenset(
    """
    alignas alignof and and_eq asm auto bitand bitor bool break case catch char char8_t char16_t
    char32_t class compl concept const consteval constexpr constinit const_cast continue co_await
    co_return co_yield decltype default delete do double dynamic_cast else enum explicit export
    extern false float for friend goto if inline int long mutable namespace new noexcept not not_eq
    nullptr operator or or_eq private protected public register reinterpret_cast requires return
    short signed sizeof static static_assert static_cast struct switch template this thread_local
    throw true try typedef typeid typename union unsigned using virtual void volatile wchar_t while
    xor xor_eq std main tflite
    """.split()  # noqa: SIM905
)


def cpp_identifier(name: str) -> str:
    """A name as a lower-case C++ identifier, neither a keyword nor reserved."""
    safe = re.sub(r"\W+", "_", str(name), flags=re.ASCII).strip("_").lower()
    safe = re.sub(r"_{2,}", "_", safe)
    if not safe or safe[0].isdigit():
        safe = f"student_{safe}".rstrip("_")
    return f"{safe}_student" if safe in _CPP_KEYWORDS else safe


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


_KOTLIN_KEYWORDS = frozenset(
    """
    as break class continue do else false for fun if in interface is null object package return
    super this throw true try typealias typeof val var when while
    """.split()  # noqa: SIM905
)


#: What the Kotlin class calls its own members and the arguments of its lambdas.
_KOTLIN_MEMBERS = frozenset("bytes inputs it model normalized outputs".split())  # noqa: SIM905


def kotlin_identifier(name: str) -> str:
    """A name as a Kotlin identifier, neither a keyword nor one that the generated class uses."""
    if name in _KOTLIN_MEMBERS:
        return f"{name}_"
    if name in _KOTLIN_KEYWORDS or not name.strip("_"):
        return f"`{name}`"
    return name
