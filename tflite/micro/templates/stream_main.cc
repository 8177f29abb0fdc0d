// Plays a stored recording through the stream @NAME@ and its decision, prints what is detected at
// which step, and PASS where it is what Python detected.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>

#include "@NAME@.h"
#include "@NAME@_decision.h"
@INCLUDE@
#include "@NAME@_model.h"
#include "@NAME@_recording.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/system_setup.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace {

namespace kit = @NAME@;

alignas(16) std::uint8_t arena[kit::kArenaSize];

// The state that each step hands to the next.
@STATES@

@HELPERS@

@NEXT@

int Run() {
  tflite::InitializeTarget();
  static kit::Resolver resolver;
  if (kit::AddOperators(resolver) != kTfLiteOk) {
    std::printf("FAIL: an operator is missing\n");
    return 1;
  }
  static tflite::MicroInterpreter interpreter(tflite::GetModel(kit::kModel), resolver, arena,
                                              kit::kArenaSize);
  if (interpreter.AllocateTensors() != kTfLiteOk) {
    std::printf("FAIL: the interpreter did not start\n");
    return 1;
  }
  constexpr int kClasses = @CLASSES@;
  constexpr int kRows = static_cast<int>(kit::@OUTPUT@::kSize) / kClasses;
  static kit::@OUTPUT@::Type output[kit::@OUTPUT@::kSize];
  static kit::Decision decision;
  int found = 0;
  bool same = true;
@BEGIN@
@STARTS@
  for (int step = 0; step < kit::kSteps; ++step) {
    Give<kit::@INPUT@>(interpreter, @FRAMES@);
@FEEDS@
    if (interpreter.Invoke() != kTfLiteOk) {
      std::printf("FAIL: step %d did not run\n", step);
      return 1;
    }
@KEEPS@
    Take<kit::@OUTPUT@>(interpreter, output);
    for (int row = 0; row < kRows; ++row) {
      float scores[kClasses];
      for (int i = 0; i < kClasses; ++i) {
        scores[i] = @SCORE@;
      }
      const int word = decision.Update(scores);
      if (word < 0) continue;
      const int place = step * kRows + row;
      std::printf("step %d: class %d\n", place, word);
      same = same && found < kit::kDetectionCount && kit::kDetections[found].step == place &&
             kit::kDetections[found].word == word;
      ++found;
    }
  }
  same = same && found == kit::kDetectionCount;
  std::printf("%s: %d of %d detections\n", same ? "PASS" : "FAIL", found, kit::kDetectionCount);
  return same ? 0 : 1;
}

}  // namespace

int main() { return Run(); }
