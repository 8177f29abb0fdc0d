// From the samples of a microphone to what @NAME@ detects: front end, stream and decision.
#ifndef @GUARD@_LISTENER_H_
#define @GUARD@_LISTENER_H_

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include "@NAME@.h"
#include "@NAME@_decision.h"
#include "@NAME@_front_end.h"
#include "@NAME@_model.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace @NAME@ {
namespace listening {

namespace kit = ::@NAME@;

@HELPERS@

@ENCODE@

// A program has one of them, as they share the arena.
class Listener {
 public:
  static constexpr int kSampleRate = kit::FrontEnd::kSampleRate;
  static constexpr int kStep = kit::FrontEnd::kStep;
  static constexpr int kNothing = -1;
  static constexpr int kFailed = -2;  // the model did not run

  // Once. False where the microphone has another sample rate, or the interpreter doesn't start.
  bool Start(int sample_rate) {
    alignas(16) static std::uint8_t arena[kit::kArenaSize];
    static kit::Resolver resolver;
    if (interpreter_ != nullptr || !front_end_.Start(sample_rate)) return false;
    if (kit::AddOperators(resolver) != kTfLiteOk) return false;
    static tflite::MicroInterpreter interpreter(tflite::GetModel(kit::kModel), resolver, arena,
                                                kit::kArenaSize);
    if (interpreter.AllocateTensors() != kTfLiteOk) return false;
    interpreter_ = &interpreter;
    Reset();
    return true;
  }

  // Forgets what was heard, for example where samples were lost.
  void Reset() {
    front_end_.Reset();
    decision_.Reset();
    filled_ = 0;
@STARTS@
  }

  // Takes kStep samples. Returns the class that is detected, or kNothing, or kFailed.
  int Hear(const std::int16_t* samples) {
    float features[kit::FrontEnd::kBands];
    if (!front_end_.Process(samples, features)) return kNothing;
    for (int band = 0; band < kit::FrontEnd::kBands; ++band) {
      frames_[filled_++] = @ENCODED@;
    }
    if (filled_ < kit::@INPUT@::kSize) return kNothing;
    filled_ = 0;
    return Step();
  }

 private:
  int Step() {
    tflite::MicroInterpreter& interpreter = *interpreter_;
    Give<kit::@INPUT@>(interpreter, frames_);
@FEEDS@
    if (interpreter.Invoke() != kTfLiteOk) return kFailed;
@KEEPS@
    kit::@OUTPUT@::Type output[kit::@OUTPUT@::kSize];
    Take<kit::@OUTPUT@>(interpreter, output);
    constexpr int kClasses = @CLASSES@;
    int heard = kNothing;
    for (int row = 0; row < static_cast<int>(kit::@OUTPUT@::kSize) / kClasses; ++row) {
      float scores[kClasses];
      for (int i = 0; i < kClasses; ++i) {
        scores[i] = @SCORE@;
      }
      const int word = decision_.Update(scores);
      if (word >= 0 && heard == kNothing) heard = word;
    }
    return heard;
  }

  kit::FrontEnd front_end_;
  kit::Decision decision_;
  tflite::MicroInterpreter* interpreter_ = nullptr;
  std::size_t filled_ = 0;
  kit::@INPUT@::Type frames_[kit::@INPUT@::kSize];
  // The state that each step hands to the next.
@STATES@
};

}  // namespace listening

using listening::Listener;

}  // namespace @NAME@

#endif  // @GUARD@_LISTENER_H_
