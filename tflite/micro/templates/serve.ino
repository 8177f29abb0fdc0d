// Serves @NAME@ to `keras-distill prove --serial`, on an Arduino board with a TFLite Micro library.
// By this header Arduino finds the library: put the name of your library's there.
#include <Chirale_TensorFlowLite.h>

#include "@NAME@.h"
#include "@NAME@_model.h"
#include "@NAME@_serve.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace {

alignas(16) uint8_t arena[@NAME@::kArenaSize];
@NAME@::Resolver resolver;
@NAME@::Server* server = nullptr;

void Send(char character) { Serial.write(character); }
uint32_t Microseconds() { return micros(); }

}  // namespace

void setup() {
  Serial.begin(115200);
  if (@NAME@::AddOperators(resolver) != kTfLiteOk) {
    Serial.println("an operator could not be added");
    return;
  }
  static tflite::MicroInterpreter interpreter(tflite::GetModel(@NAME@::kModel), resolver, arena,
                                              @NAME@::kArenaSize);
  if (interpreter.AllocateTensors() != kTfLiteOk) {
    // The arena is too small, or these kernels refuse an operator: TFLite Micro logs which.
    Serial.println("the interpreter did not start");
    return;
  }
  static @NAME@::Server created(interpreter, Send, Microseconds);
  server = &created;
}

void loop() {
  while (server != nullptr && Serial.available() > 0) server->Take(static_cast<char>(Serial.read()));
}
