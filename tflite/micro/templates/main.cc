// Runs the stored test vectors of @NAME@ and prints PASS or FAIL.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "@NAME@.h"
#include "@NAME@_model.h"
#include "@NAME@_test_vectors.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/system_setup.h"
#include "tensorflow/lite/schema/schema_generated.h"

// How far an output may be from the stored one, in steps of its quantization. Kernels optimized
// for a processor may round differently from the reference kernels.
#ifndef @GUARD@_TOLERANCE
#define @GUARD@_TOLERANCE 0
#endif

namespace {

alignas(16) std::uint8_t arena[@NAME@::kArenaSize];

// Copies one vector of an input to its tensor.
template <typename Port>
void Feed(tflite::MicroInterpreter& interpreter, const typename Port::Type* vectors, int index) {
  std::memcpy(interpreter.input(Port::kIndex)->data.raw, vectors + index * Port::kSize,
              Port::kSize * sizeof(typename Port::Type));
}

// The largest distance of an output tensor from one stored vector.
template <typename Port>
double Distance(tflite::MicroInterpreter& interpreter, const typename Port::Type* vectors,
                int index) {
  typename Port::Type got[Port::kSize];
  std::memcpy(got, interpreter.output(Port::kIndex)->data.raw, sizeof(got));
  double largest = 0.0;
  for (std::size_t i = 0; i < Port::kSize; ++i) {
    const double expected = static_cast<double>(vectors[index * Port::kSize + i]);
    largest = std::fmax(largest, std::fabs(static_cast<double>(got[i]) - expected));
  }
  return largest;
}

int Run() {
  tflite::InitializeTarget();
  const tflite::Model* model = tflite::GetModel(@NAME@::kModel);
  if (model->version() != TFLITE_SCHEMA_VERSION) {
    std::printf("FAIL: the file has schema version %d, TFLite Micro reads another\n", static_cast<int>(model->version()));
    return 1;
  }
  static @NAME@::Resolver resolver;
  if (@NAME@::AddOperators(resolver) != kTfLiteOk) {
    std::printf("FAIL: an operator is missing\n");
    return 1;
  }
  static tflite::MicroInterpreter interpreter(model, resolver, arena, @NAME@::kArenaSize);
  if (interpreter.AllocateTensors() != kTfLiteOk) {
    std::printf("FAIL: the interpreter did not start: the arena of %d bytes is too small, or these "
                "kernels refuse an operator. TFLite Micro's own message says which\n",
                static_cast<int>(@NAME@::kArenaSize));
    return 1;
  }
  int passed = 0;
  for (int i = 0; i < @NAME@::kVectorCount; ++i) {
    // Forgets the state of recurrent operators.
    interpreter.Reset();
@FEEDS@
    if (interpreter.Invoke() != kTfLiteOk) {
      std::printf("FAIL: vector %d did not run\n", i);
      return 1;
    }
    bool same = true;
@CHECKS@
    passed += same ? 1 : 0;
  }
  const bool all = passed == @NAME@::kVectorCount;
  std::printf("arena %d of %d bytes\n", static_cast<int>(interpreter.arena_used_bytes()),
              static_cast<int>(@NAME@::kArenaSize));
  std::printf("%s: %d of %d @VECTORS@\n", all ? "@PASS@" : "FAIL", passed,
              @NAME@::kVectorCount);
  return all ? 0 : 1;
}

}  // namespace

int main() { return Run(); }
