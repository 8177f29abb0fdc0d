// The features of a sound that @NAME@ was trained on, from TFLite Micro's audio front end
// (tensorflow/lite/experimental/microfrontend/lib, which needs kissfft).
#ifndef @GUARD@_FRONT_END_H_
#define @GUARD@_FRONT_END_H_

#include <cstddef>
#include <cstdint>

#include "tensorflow/lite/experimental/microfrontend/lib/frontend.h"
#include "tensorflow/lite/experimental/microfrontend/lib/frontend_util.h"

namespace @NAME@ {

class FrontEnd {
 public:
  static constexpr int kSampleRate = @RATE@;
  static constexpr int kBands = @BANDS@;
  static constexpr int kStep = @STEP@;  // samples from one frame to the next

  ~FrontEnd() {
    if (started_) FrontendFreeStateContents(&state_);
  }

  // Allocates its tables. False where memory is short, or the microphone has another sample rate:
  // resample it then.
  bool Start(int sample_rate) {
    if (sample_rate != kSampleRate || started_) return false;
    FrontendConfig config = {};
    FrontendFillConfigWithDefaults(&config);
    config.window.size_ms = 30;
    config.window.step_size_ms = 10;
    config.filterbank.num_channels = kBands;
    config.filterbank.lower_band_limit = 125.0f;
    config.filterbank.upper_band_limit = 7500.0f;
    config.noise_reduction.smoothing_bits = 10;
    config.noise_reduction.even_smoothing = 0.025f;
    config.noise_reduction.odd_smoothing = 0.06f;
    config.noise_reduction.min_signal_remaining = 0.05f;
    config.pcan_gain_control.enable_pcan = 1;
    config.pcan_gain_control.strength = 0.95f;
    config.pcan_gain_control.offset = 80.0f;
    config.pcan_gain_control.gain_bits = 21;
    config.log_scale.enable_log = 1;
    config.log_scale.scale_shift = 6;
    started_ = FrontendPopulateState(&config, &state_, kSampleRate) != 0;
    return started_;
  }

  // Starts anew.
  void Reset() { FrontendReset(&state_); }

  // Takes kStep samples. True where they complete a frame, whose features it writes.
  bool Process(const std::int16_t* samples, float* features) {
    std::size_t read = 0;
    const FrontendOutput output = FrontendProcessSamples(&state_, samples, kStep, &read);
    for (std::size_t i = 0; i < output.size; ++i) {
      features[i] = static_cast<float>(output.values[i]) * @SCALE@f;
    }
    return output.size == kBands;
  }

 private:
  FrontendState state_ = {};
  bool started_ = false;
};

}  // namespace @NAME@

#endif  // @GUARD@_FRONT_END_H_
