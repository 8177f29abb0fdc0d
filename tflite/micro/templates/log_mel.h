// The features of a sound that @NAME@ was trained on: log-mel spectrograms, by the C++ standard
// library alone. Nothing is allocated; an object takes about @RAM@ bytes, its tables @FLASH@ of flash.
#ifndef @GUARD@_FRONT_END_H_
#define @GUARD@_FRONT_END_H_

#include <cmath>
#include <cstdint>

namespace @NAME@ {

class FrontEnd {
 public:
  static constexpr int kSampleRate = @RATE@;
  static constexpr int kBands = @BANDS@;
  static constexpr int kStep = @STEP@;      // samples from one frame to the next
  static constexpr int kWindow = @WINDOW@;  // samples of a frame

  // False where the microphone has another sample rate: resample it then.
  bool Start(int sample_rate) {
    if (sample_rate != kSampleRate) return false;
    Reset();
    return true;
  }

  // Starts anew.
  void Reset() { heard_ = 0; }

  // Takes kStep samples. True where they complete a frame, whose features it writes.
  bool Process(const std::int16_t* samples, float* features) {
    if (heard_ == kKept) {
      for (int i = kStep; i < kKept; ++i) kept_[i - kStep] = kept_[i];
      heard_ -= kStep;
    }
    for (int i = 0; i < kStep; ++i) kept_[heard_ + i] = samples[i];
    heard_ += kStep;
    if (heard_ < kKept) return false;
    Features(features);
    return true;
  }

 private:
  static constexpr int kPoints = @POINTS@;
  static constexpr int kHalf = kPoints / 2;
  // Whole steps that hold a window.
  static constexpr int kKept = (kWindow + kStep - 1) / kStep * kStep;

  // The weight of each sample in a frame.
  static float Weight(int i) {
    static const float weights[kWindow] = {
@HANN@
    };
    return weights[i];
  }

  // The cosine and sine of 2 pi i / kPoints, for i below kHalf.
  static float Cosine(int i) {
    static const float values[kHalf] = {
@COSINES@
    };
    return values[i];
  }
  static float Sine(int i) {
    static const float values[kHalf] = {
@SINES@
    };
    return values[i];
  }

  void Features(float* features) {
    // The frame as kHalf complex numbers, in the order that the transform needs, zeros after it.
    for (int i = 0, reversed = 0; i < kHalf; ++i) {
      real_[reversed] = Sample(2 * i);
      imaginary_[reversed] = Sample(2 * i + 1);
      int bit = kHalf / 2;
      for (; bit > 0 && (reversed & bit) != 0; bit /= 2) reversed ^= bit;
      reversed |= bit;
    }
    Transform();
    Energies();
    // First frequency and number of them in each band, and their weights, band after band.
    static const std::int16_t bands[kBands][2] = {
@RANGES@
    };
    static const float weights[] = {
@WEIGHTS@
    };
    int place = 0;
    for (int band = 0; band < kBands; ++band) {
      float total = 0.0f;
      for (int i = 0; i < bands[band][1]; ++i) {
        total += weights[place++] * energies_[bands[band][0] + i];
      }
      features[band] = std::log(total + 1e-6f);
    }
  }

  float Sample(int i) const {
    return i < kWindow ? Weight(i) * (static_cast<float>(kept_[i]) / 32768.0f) : 0.0f;
  }

  // The fast Fourier transform of kHalf complex numbers, in place.
  void Transform() {
    for (int size = 2; size <= kHalf; size *= 2) {
      for (int start = 0; start < kHalf; start += size) {
        for (int i = 0; i < size / 2; ++i) {
          const float cosine = Cosine(i * (kPoints / size)), sine = Sine(i * (kPoints / size));
          const int a = start + i, b = a + size / 2;
          const float real = cosine * real_[b] + sine * imaginary_[b];
          const float imaginary = cosine * imaginary_[b] - sine * real_[b];
          real_[b] = real_[a] - real;
          imaginary_[b] = imaginary_[a] - imaginary;
          real_[a] += real;
          imaginary_[a] += imaginary;
        }
      }
    }
  }

  // The energy of each frequency: the transform of the even samples and that of the odd ones, taken
  // apart and put together.
  void Energies() {
    for (int i = 0; i <= kHalf; ++i) {
      const int a = i % kHalf, b = (kHalf - i) % kHalf;
      const float cosine = i < kHalf ? Cosine(i) : -1.0f, sine = i < kHalf ? Sine(i) : 0.0f;
      const float even_real = (real_[a] + real_[b]) / 2;
      const float even_imaginary = (imaginary_[a] - imaginary_[b]) / 2;
      const float odd_real = (imaginary_[a] + imaginary_[b]) / 2;
      const float odd_imaginary = (real_[b] - real_[a]) / 2;
      const float real = even_real + cosine * odd_real + sine * odd_imaginary;
      const float imaginary = even_imaginary + cosine * odd_imaginary - sine * odd_real;
      energies_[i] = real * real + imaginary * imaginary;
    }
  }

  std::int16_t kept_[kKept] = {};
  float real_[kHalf] = {};
  float imaginary_[kHalf] = {};
  float energies_[kHalf + 1] = {};
  int heard_ = 0;
};

}  // namespace @NAME@

#endif  // @GUARD@_FRONT_END_H_
