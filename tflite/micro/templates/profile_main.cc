// Runs @NAME@ a few times and prints the ticks of each operator, as `keras-distill profile` reads them.
// On a board, give a clock: -D@GUARD@_TICKS=my_clock, a function without arguments.
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "@NAME@.h"
#include "@NAME@_model.h"
#include "@NAME@_profile.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/system_setup.h"
#include "tensorflow/lite/schema/schema_generated.h"

#ifdef @GUARD@_TICKS
std::uint32_t @GUARD@_TICKS();
#else
#include <chrono>
// Nanoseconds.
#define @GUARD@_TICKS HostTicks
static std::uint32_t HostTicks() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return static_cast<std::uint32_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(now).count());
}
#endif

namespace {

alignas(16) std::uint8_t arena[@NAME@::kArenaSize];

void Print(std::uint32_t place, const char* tag, std::uint32_t ticks) {
  std::printf("%lu,%s,%lu\n", static_cast<unsigned long>(place), tag,
              static_cast<unsigned long>(ticks));
}

}  // namespace

int main() {
  tflite::InitializeTarget();
  static @NAME@::Resolver resolver;
  if (@NAME@::AddOperators(resolver) != kTfLiteOk) return 1;
  static @NAME@::Profile profile(@GUARD@_TICKS);
  static tflite::MicroInterpreter interpreter(tflite::GetModel(@NAME@::kModel), resolver, arena,
                                              @NAME@::kArenaSize, nullptr, &profile);
  if (interpreter.AllocateTensors() != kTfLiteOk) return 1;
  std::printf("\"Event\",\"Tag\",\"Ticks\"\n");
  for (int run = 0; run < 5; ++run) {
    interpreter.Reset();
@BLANKS@
    if (interpreter.Invoke() != kTfLiteOk) return 1;
    profile.Log(Print);
  }
  return 0;
}
