// Serves @NAME@ to `keras-distill prove` over standard input and output, until the input ends.
#include <chrono>
#include <cstdint>
#include <cstdio>

#include "@NAME@.h"
#include "@NAME@_model.h"
#include "@NAME@_serve.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/system_setup.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace {

alignas(16) std::uint8_t arena[@NAME@::kArenaSize];

void Send(char character) {
  std::putchar(character);
  if (character == '\n') std::fflush(stdout);
}

std::uint32_t Microseconds() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return static_cast<std::uint32_t>(
      std::chrono::duration_cast<std::chrono::microseconds>(now).count());
}

}  // namespace

int main() {
  tflite::InitializeTarget();
  static @NAME@::Resolver resolver;
  if (@NAME@::AddOperators(resolver) != kTfLiteOk) return 1;
  static tflite::MicroInterpreter interpreter(tflite::GetModel(@NAME@::kModel), resolver, arena,
                                              @NAME@::kArenaSize);
  if (interpreter.AllocateTensors() != kTfLiteOk) return 1;
  static @NAME@::Server server(interpreter, Send, Microseconds);
  for (int character; (character = std::getchar()) != EOF;) server.Take(static_cast<char>(character));
  return 0;
}
