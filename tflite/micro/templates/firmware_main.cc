// The least firmware that runs @NAME@, to be measured: with MEASURED, it prints what an inference
// takes, and else nothing.
#include <cstdint>
#include <cstdio>

#include "@NAME@.h"
#include "@NAME@_model.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace {

alignas(16) std::uint8_t arena[@NAME@::kArenaSize];

#ifdef MEASURED
// The timer of 24 bits counts down once for each 40 instructions.
volatile std::uint32_t* const kTimer = reinterpret_cast<volatile std::uint32_t*>(0xE000E010);
constexpr std::uint32_t kPaint = 0xA5A5A5A5;
constexpr std::uint32_t kWords = 16 * 1024;

// The memory below the stack as it is now.
volatile std::uint32_t* Below() {
  return static_cast<std::uint32_t*>(__builtin_frame_address(0)) - kWords - 64;
}
#endif

}  // namespace

int main() {
  static @NAME@::Resolver resolver;
  if (@NAME@::AddOperators(resolver) != kTfLiteOk) return 1;
  static tflite::MicroInterpreter interpreter(tflite::GetModel(@NAME@::kModel), resolver, arena,
                                              @NAME@::kArenaSize);
  if (interpreter.AllocateTensors() != kTfLiteOk) return 2;
  if (interpreter.Invoke() != kTfLiteOk) return 3;
#ifdef MEASURED
  volatile std::uint32_t* const stack = Below();
  for (std::uint32_t i = 0; i < kWords; ++i) stack[i] = kPaint;
  const std::uint32_t start = kTimer[2];
  if (interpreter.Invoke() != kTfLiteOk) return 3;
  const std::uint32_t ticks = (start - kTimer[2]) & 0xFFFFFF;
  std::uint32_t unused = 0;
  while (unused < kWords && stack[unused] == kPaint) ++unused;
  std::printf("inference %lu stack %lu arena %lu\n", 40 * static_cast<unsigned long>(ticks),
              static_cast<unsigned long>(4 * (kWords + 64 - unused)),
              static_cast<unsigned long>(interpreter.arena_used_bytes()));
#endif
  return 0;
}
