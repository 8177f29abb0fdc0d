// Runs @NAME@ on an Arduino board with a TFLite Micro library, once a second.
// By this header Arduino finds the library: put the name of your library's there.
#include <Chirale_TensorFlowLite.h>

#include "@NAME@.h"
#include "@NAME@_model.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace {

alignas(16) uint8_t arena[@NAME@::kArenaSize];
@NAME@::Resolver resolver;
tflite::MicroInterpreter* interpreter = nullptr;

@STATES@

// Replace with your sensors' values: one for each element of each input.
float Sensor(size_t input, size_t element) { return static_cast<float>((input + element) % 2); }

template <typename Port>
typename Port::Type* Input() {
  return reinterpret_cast<typename Port::Type*>(interpreter->input(Port::kIndex)->data.raw);
}

template <typename Port>
const typename Port::Type* Output() {
  return reinterpret_cast<const typename Port::Type*>(interpreter->output(Port::kIndex)->data.raw);
}

}  // namespace

void setup() {
  Serial.begin(115200);
  if (@NAME@::AddOperators(resolver) != kTfLiteOk) {
    Serial.println("an operator could not be added");
    return;
  }
  static tflite::MicroInterpreter created(tflite::GetModel(@NAME@::kModel), resolver, arena,
                                          @NAME@::kArenaSize);
  if (created.AllocateTensors() != kTfLiteOk) {
    // The arena is too small, or these kernels refuse an operator: TFLite Micro logs which.
    Serial.println("the interpreter did not start");
    return;
  }
@ZEROS@
  interpreter = &created;
}

void loop() {
  if (interpreter == nullptr) return;
@RESET@
@FILLS@
  if (interpreter->Invoke() != kTfLiteOk) {
    Serial.println("the model failed to run");
    return;
  }
@CARRIES@
  const @NAME@::@FIRST_OUTPUT@::Type* output = Output<@NAME@::@FIRST_OUTPUT@>();
  for (size_t i = 0; i < @NAME@::@FIRST_OUTPUT@::kSize; ++i) {
@PRINT_LABEL@
    Serial.println(@DECODE@);
  }
  delay(1000);
}
