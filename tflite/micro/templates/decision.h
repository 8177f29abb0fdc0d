// When firmware acts on the scores that @NAME@ gives step by step.
#ifndef @GUARD@_DECISION_H_
#define @GUARD@_DECISION_H_

namespace @NAME@ {

// The scores of the last kSmoothing steps are averaged. Of the classes whose mean reaches their
// threshold, the one with the largest mean is detected. For kRefractory steps after that, there
// is no other detection. Compile it without -ffast-math to find what Python finds, bit for bit.
class Decision {
 public:
  static constexpr int kSmoothing = @SMOOTHING@;
  static constexpr int kRefractory = @REFRACTORY@;
  static constexpr int kWarmUp = @WARM_UP@;  // steps after a start that say nothing yet
  static constexpr int kWordCount = @WORD_COUNT@;

  // Starts anew.
  void Reset() {
    step_ = 0;
    wait_ = 0;
  }

  // Takes the scores of a step, one a class. Returns the class that is detected, or -1.
  int Update(const float* scores) {
    // Before C++17 an array in the class would have no place to be read from.
    static constexpr int kWords[kWordCount] = {@WORDS@};
    static constexpr double kThresholds[kWordCount] = {@THRESHOLDS@};
    const bool ready = step_ >= kWarmUp + kSmoothing - 1;
    for (int word = 0; word < kWordCount; ++word) {
      for (int i = 1; i < kSmoothing; ++i) recent_[word][i - 1] = recent_[word][i];
      recent_[word][kSmoothing - 1] = scores[kWords[word]];
    }
    if (!ready) {
      ++step_;
      return -1;
    }
    if (wait_ > 0) {
      --wait_;
      return -1;
    }
    int best = -1;
    double largest = 0.0;
    for (int word = 0; word < kWordCount; ++word) {
      double total = 0.0;
      for (int i = 0; i < kSmoothing; ++i) total += static_cast<double>(recent_[word][i]);
      const double mean = total / kSmoothing;
      if (mean >= kThresholds[word] && (best < 0 || mean > largest)) {
        best = kWords[word];
        largest = mean;
      }
    }
    if (best >= 0) wait_ = kRefractory;
    return best;
  }

 private:
  float recent_[kWordCount][kSmoothing] = {};
  int step_ = 0;
  int wait_ = 0;
};

}  // namespace @NAME@

#endif  // @GUARD@_DECISION_H_
