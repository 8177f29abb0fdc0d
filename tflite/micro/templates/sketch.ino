// Runs @NAME@ on an Arduino board with a TFLite Micro library, once a second.
#include "@NAME@.h"
#include "@NAME@_model.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace {

alignas(16) uint8_t arena[@NAME@::kArenaSize];
@NAME@::Resolver resolver;
tflite::MicroInterpreter* interpreter = nullptr;

// Replace by what your sensor gives: a value for each element of the input.
float Sensor(size_t element) { return static_cast<float>(element % 2); }

}  // namespace

void setup() {
  Serial.begin(115200);
  if (@NAME@::AddOperators(resolver) != kTfLiteOk) {
    Serial.println("an operator is missing");
    return;
  }
  static tflite::MicroInterpreter created(tflite::GetModel(@NAME@::kModel), resolver, arena,
                                          @NAME@::kArenaSize);
  if (created.AllocateTensors() != kTfLiteOk) {
    Serial.println("the arena is too small");
    return;
  }
  interpreter = &created;
}

void loop() {
  if (interpreter == nullptr) return;
  using Input = @NAME@::@FIRST_INPUT@;
  using Output = @NAME@::@FIRST_OUTPUT@;
  Input::Type* input = reinterpret_cast<Input::Type*>(interpreter->input(Input::kIndex)->data.raw);
  for (size_t i = 0; i < Input::kSize; ++i) {
    input[i] = @ENCODE@;
  }
@RESET@
  if (interpreter->Invoke() != kTfLiteOk) {
    Serial.println("the model did not run");
    return;
  }
  const Output::Type* output =
      reinterpret_cast<const Output::Type*>(interpreter->output(Output::kIndex)->data.raw);
  for (size_t i = 0; i < Output::kSize; ++i) {
@PRINT_LABEL@
    Serial.println(@DECODE@);
  }
  delay(1000);
}
