// Serves the kit named `student` over the first UART of Arm's MPS2 board, as QEMU models it.
#include <cstdint>

#include "student.h"
#include "student_model.h"
#include "student_serve.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/system_setup.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace {

volatile std::uint32_t* const kUart = reinterpret_cast<volatile std::uint32_t*>(0x40004000);
volatile std::uint32_t* const kTimer = reinterpret_cast<volatile std::uint32_t*>(0xE000E010);
alignas(16) std::uint8_t arena[student::kArenaSize];

void Send(char character) {
  while (kUart[1] & 1) {
  }
  kUart[0] = static_cast<std::uint8_t>(character);
}

// The timer of 24 bits counts down 25 times in a microsecond.
std::uint32_t Microseconds() {
  static std::uint32_t last = kTimer[2], ticks = 0;
  const std::uint32_t now = kTimer[2];
  ticks += (last - now) & 0xFFFFFF;
  last = now;
  return ticks / 25;
}

}  // namespace

int main() {
  kUart[4] = 16;
  kUart[2] = 3;
  tflite::InitializeTarget();
  static student::Resolver resolver;
  if (student::AddOperators(resolver) != kTfLiteOk) return 1;
  static tflite::MicroInterpreter interpreter(tflite::GetModel(student::kModel), resolver, arena,
                                              student::kArenaSize);
  if (interpreter.AllocateTensors() != kTfLiteOk) return 1;
  static student::Server server(interpreter, Send, Microseconds);
  for (;;) {
    if (kUart[1] & 2) server.Take(static_cast<char>(kUart[0]));
  }
}
