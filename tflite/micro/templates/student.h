// What firmware needs to run @NAME@: its operators, arena, inputs, outputs and labels.
#ifndef @GUARD@_H_
#define @GUARD@_H_

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "tensorflow/lite/micro/kernels/fully_connected.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"

namespace @NAME@ {

@DENSE@

@ARENA@
constexpr std::size_t kArenaSize = @ARENA_SIZE@;

// The inputs and outputs. Where kScale is not 0, an integer q stands for
// (q - kZeroPoint) * kScale.
@PORTS@

constexpr int kLabelCount = @LABEL_COUNT@;
@LABELS@

// The integer that stands for a value: Quantize<@FIRST_INPUT@>(0.5f).
template <typename Port>
inline typename Port::Type Quantize(float value) {
  static_assert(Port::kScale > 0.0f, "this port is not quantized");
  using Limits = std::numeric_limits<typename Port::Type>;
  const float steps =
      std::nearbyint(value / Port::kScale) + static_cast<float>(Port::kZeroPoint);
  return static_cast<typename Port::Type>(
      std::min(std::max(steps, static_cast<float>(Limits::min())),
               static_cast<float>(Limits::max())));
}

// The value that an integer stands for.
template <typename Port>
inline float Dequantize(typename Port::Type q) {
  static_assert(Port::kScale > 0.0f, "this port is not quantized");
  return static_cast<float>(static_cast<std::int32_t>(q) - Port::kZeroPoint) *
         Port::kScale;
}

// Exactly the operators that the file uses.
using Resolver = tflite::MicroMutableOpResolver<@OPERATOR_COUNT@>;

inline TfLiteStatus AddOperators(Resolver& resolver) {
@OPERATORS@
  return kTfLiteOk;
}

}  // namespace @NAME@

#endif  // @GUARD@_H_
