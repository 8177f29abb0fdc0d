// The time of each operator of @NAME@, by a clock of yours. TFLite Micro's MicroProfiler takes 80 KB;
// this takes 8 bytes for each operator. Hand it to the interpreter as its profiler. A library that is
// built with TF_LITE_STRIP_ERROR_STRINGS, as releases are, profiles nothing.
#ifndef @GUARD@_PROFILE_H_
#define @GUARD@_PROFILE_H_

#include <cstdint>

#include "tensorflow/lite/micro/micro_profiler_interface.h"

namespace @NAME@ {

class Profile : public tflite::MicroProfilerInterface {
 public:
  // Ticks of any unit. They may overflow.
  using Clock = std::uint32_t (*)();

  explicit Profile(Clock clock) : clock_(clock) {}

  std::uint32_t BeginEvent(const char* tag) override {
    if (count_ >= kOperators) return kOperators;
    tags_[count_] = tag;
    ticks_[count_] = clock_();
    return count_++;
  }

  void EndEvent(std::uint32_t event) override {
    if (event < kOperators) ticks_[event] = clock_() - ticks_[event];
  }

  // Calls print(place, operator, ticks) for each operator that ran, and starts anew.
  template <typename Print>
  void Log(Print print) {
    for (std::uint32_t i = 0; i < count_; ++i) print(i, tags_[i], ticks_[i]);
    count_ = 0;
  }

 private:
  // Those of the file; of a loop, only the first turns have room.
  static constexpr std::uint32_t kOperators = @EVENTS@;

  const Clock clock_;
  const char* tags_[kOperators];
  std::uint32_t ticks_[kOperators];
  std::uint32_t count_ = 0;
};

}  // namespace @NAME@

#endif  // @GUARD@_PROFILE_H_
