// What @NAME@ finds on an image: its outputs decoded, duplicates dropped.
#ifndef @GUARD@_BOXES_H_
#define @GUARD@_BOXES_H_

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace @NAME@ {

// Edges are in pixels of the image that the file was given.
struct Detection {
  float left, top, right, bottom;
  float score;
  int label;
};

// Of the kCandidates surest pairs of place and class whose scores reach kScore, those remain that have
// an area, and that no surer one of their class overlaps by more than kIou. It allocates nothing: let
// it be static.
class Boxes {
 public:
  using Classes = @CLASSES_TYPE@;
  using Sides = @BOXES_TYPE@;
  static constexpr int kMost = @MOST@;
  static constexpr int kCandidates = @CANDIDATES@;
  static constexpr float kScore = @SCORE@;
  static constexpr float kIou = @IOU@;

  // Takes the output tensors @CLASSES_STRUCT@ and @BOXES_STRUCT@. Returns how many there are, at most
  // kMost, the surest first: `found()` has them.
  int Find(const Classes* classes, const Sides* boxes) {
    count_ = 0;
    for (int place = 0; place < kPlaces; ++place) {
      for (int label = 0; label < kLabels; ++label) {
        const float score = Score(classes[place * kLabels + label]);
        if (score >= kScore) Insert({score, label, place});
      }
    }
    int kept = 0;
    for (int i = 0; i < count_ && kept < kMost; ++i) {
      const Detection one = Decoded(candidates_[i], boxes);
      bool alone = Area(one) > 0.0f;
      for (int k = 0; k < kept && alone; ++k) {
        alone = found_[k].label != one.label || Overlap(found_[k], one) <= kIou;
      }
      if (alone) found_[kept++] = one;
    }
    return kept;
  }

  const Detection* found() const { return found_; }

 private:
  struct Candidate {
    float score;
    int label, place;
    bool Before(const Candidate& other) const {
      if (score != other.score) return score > other.score;
      return label != other.label ? label < other.label : place < other.place;
    }
  };

  static constexpr int kPlaces = @PLACES@;
  static constexpr int kLabels = @LABELS@;
  static constexpr float kWidth = @WIDTH@;
  static constexpr float kHeight = @HEIGHT@;

  static float Score(Classes q) {
    const float value = @CLASSES_VALUE@;
    return @ACTIVATED@;
  }

  static float Side(Sides q) { return @BOXES_VALUE@; }

  // Keeps the candidates sorted, the surest first.
  void Insert(const Candidate& one) {
    if (count_ == kCandidates && !one.Before(candidates_[count_ - 1])) return;
    int i = count_ < kCandidates ? count_++ : count_ - 1;
    for (; i > 0 && one.Before(candidates_[i - 1]); --i) candidates_[i] = candidates_[i - 1];
    candidates_[i] = one;
  }

  static Detection Decoded(const Candidate& one, const Sides* boxes) {
    Detection box;
    Edges(one.place, boxes, &box);
    box.left = std::min(std::max(box.left, 0.0f), kWidth);
    box.right = std::min(std::max(box.right, 0.0f), kWidth);
    box.top = std::min(std::max(box.top, 0.0f), kHeight);
    box.bottom = std::min(std::max(box.bottom, 0.0f), kHeight);
    box.score = one.score;
    box.label = one.label;
    return box;
  }

@EDGES@

  static float Area(const Detection& box) {
    return std::max(box.right - box.left, 0.0f) * std::max(box.bottom - box.top, 0.0f);
  }

  static float Overlap(const Detection& a, const Detection& b) {
    const float width = std::min(a.right, b.right) - std::max(a.left, b.left);
    const float height = std::min(a.bottom, b.bottom) - std::max(a.top, b.top);
    if (width <= 0.0f || height <= 0.0f) return 0.0f;
    const float shared = width * height;
    return shared / (Area(a) + Area(b) - shared);
  }

  Candidate candidates_[kCandidates];
  Detection found_[kMost];
  int count_ = 0;
};

}  // namespace @NAME@

#endif  // @GUARD@_BOXES_H_
