"""Headers that stand for TFLite Micro's: enough to compile a kit where there is no source tree."""

from keras_distill.tflite import micro, targets

_RESOLVER = """#pragma once
#include "tensorflow/lite/c/common.h"
namespace tflite {
struct MicroOpResolver {};
template <unsigned n> struct MicroMutableOpResolver : MicroOpResolver {
  static constexpr unsigned size = n;
  unsigned added = 0;
  TfLiteStatus Add() { return added++ < n ? kTfLiteOk : kTfLiteError; }
@METHODS@
};
}  // namespace tflite
"""

_FILES = {
    "tensorflow/lite/c/common.h": """#pragma once
#include <cstddef>
#include <cstdint>
enum TfLiteStatus { kTfLiteOk, kTfLiteError };
#define TF_LITE_ENSURE_STATUS(a) do { if ((a) != kTfLiteOk) return kTfLiteError; } while (0)
struct TfLiteTensor { struct { char* raw; } data; };
""",
    "tensorflow/lite/schema/schema_generated.h": """#pragma once
#define TFLITE_SCHEMA_VERSION 3
namespace tflite {
struct Model { unsigned version() const { return TFLITE_SCHEMA_VERSION; } };
inline const Model* GetModel(const void* bytes) { return static_cast<const Model*>(bytes); }
}  // namespace tflite
""",
    "tensorflow/lite/micro/system_setup.h": """#pragma once
namespace tflite { inline void InitializeTarget() {} }
""",
    "tensorflow/lite/micro/micro_profiler_interface.h": """#pragma once
#include <cstdint>
namespace tflite {
class MicroProfilerInterface {
 public:
  virtual ~MicroProfilerInterface() {}
  virtual std::uint32_t BeginEvent(const char* tag) = 0;
  virtual void EndEvent(std::uint32_t event_handle) = 0;
};
}  // namespace tflite
""",
    "tensorflow/lite/micro/kernels/fully_connected.h": """#pragma once
namespace tflite {
struct OpDataFullyConnected { bool is_per_channel; };
}  // namespace tflite
""",
    # All inputs are at the arena's beginning, all outputs in its middle; nothing is computed.
    "tensorflow/lite/micro/micro_interpreter.h": """#pragma once
#include "tensorflow/lite/c/common.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/micro/micro_profiler_interface.h"
#include "tensorflow/lite/schema/schema_generated.h"
namespace tflite {
class MicroResourceVariables;
// What a test lets the file compute, of its first input and output.
__attribute__((weak)) void (*computed)(const char* in, char* out) = nullptr;
class MicroInterpreter {
 public:
  MicroInterpreter(const Model*, const MicroOpResolver&, std::uint8_t* arena, std::size_t size,
                   MicroResourceVariables* = nullptr, MicroProfilerInterface* profiler = nullptr)
      : in_{{reinterpret_cast<char*>(arena)}}, out_{{reinterpret_cast<char*>(arena) + size / 2}},
        profiler_(profiler) {}
  TfLiteStatus AllocateTensors() { return kTfLiteOk; }
  TfLiteStatus Invoke() {
    if (profiler_) profiler_->EndEvent(profiler_->BeginEvent("NOTHING"));
    if (computed) computed(in_.data.raw, out_.data.raw);
    return kTfLiteOk;
  }
  TfLiteStatus Reset() { return kTfLiteOk; }
  TfLiteTensor* input(std::size_t) { return &in_; }
  TfLiteTensor* output(std::size_t) { return &out_; }
  std::size_t arena_used_bytes() const { return 1; }
 private:
  TfLiteTensor in_, out_;
  MicroProfilerInterface* profiler_;
};
}  // namespace tflite
""",
}


def write(folder):
    """Writes them; returns the compiler's options that find them first."""
    methods = sorted(micro.resolver_method(op) for op in targets.MICRO_OPERATORS)
    text = "\n".join(f"  TfLiteStatus {method}() {{ return Add(); }}" for method in methods)
    files = {
        **_FILES,
        "tensorflow/lite/micro/micro_mutable_op_resolver.h": _RESOLVER.replace("@METHODS@", text),
    }
    for path, content in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
    return ["-I", str(folder)]
