"""What firmware needs beside the file: a C array and its header."""

_ALIGNMENT = 16


def files(artifact) -> dict:
    """Files of the kit, text by relative path."""
    return {
        "student_model.cc": source(artifact.tflite),
        "student_model.h": header(artifact.tflite),
    }


def source(tflite, namespace="student") -> str:
    """The file as an aligned, constant C++ array."""
    rows = [
        "    " + " ".join(f"0x{byte:02x}," for byte in tflite[i : i + 12])
        for i in range(0, len(tflite), 12)
    ]
    body = "\n".join(rows)
    return (
        f'#include "{namespace}_model.h"\n\n'
        f"namespace {namespace} {{\n\n"
        f"alignas({_ALIGNMENT}) const unsigned char kModel[kModelSize] = {{\n{body}\n}};\n\n"
        f"}}  // namespace {namespace}\n"
    )


def header(tflite, namespace="student") -> str:
    """The header of `source`."""
    guard = f"{namespace.upper()}_MODEL_H_"
    return (
        f"#ifndef {guard}\n#define {guard}\n\n#include <cstddef>\n\n"
        f"namespace {namespace} {{\n\n"
        f"constexpr std::size_t kModelSize = {len(tflite)};\n"
        f"extern const unsigned char kModel[kModelSize];\n\n"
        f"}}  // namespace {namespace}\n\n#endif  // {guard}\n"
    )
