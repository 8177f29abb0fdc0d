// Decodes the outputs of @NAME@'s stored test vectors, and compares what is found with what Python
// finds. Build it together with @NAME@_test_vectors.cc.
#include <cmath>
#include <cstdio>

#include "@NAME@_boxes.h"
#include "@NAME@_test_vectors.h"

namespace {

const int kCounts[@NAME@::kVectorCount] = {@COUNTS@};
// Left, top, right and bottom edge, score and label, one vector after the other.
const float kExpected[] = {
@EXPECTED@
};

}  // namespace

int main() {
  static @NAME@::Boxes boxes;
  const float* expected = kExpected;
  int passed = 0;
  for (int i = 0; i < @NAME@::kVectorCount; ++i) {
    const int count = boxes.Find(
        @NAME@::k@CLASSES_STRUCT@Vectors + i * @NAME@::@CLASSES_STRUCT@::kSize,
        @NAME@::k@BOXES_STRUCT@Vectors + i * @NAME@::@BOXES_STRUCT@::kSize);
    bool same = count == kCounts[i];
    for (int k = 0; k < kCounts[i]; ++k, expected += 6) {
      if (!same) continue;
      const @NAME@::Detection& one = boxes.found()[k];
      const float edges[4] = {one.left, one.top, one.right, one.bottom};
      for (int edge = 0; edge < 4; ++edge) {
        same = same && std::fabs(edges[edge] - expected[edge]) <= 0.01f;
      }
      same = same && std::fabs(one.score - expected[4]) <= 1e-4f;
      same = same && one.label == static_cast<int>(expected[5]);
    }
    passed += same ? 1 : 0;
  }
  const bool all = passed == @NAME@::kVectorCount;
  std::printf("%s: %d of %d vectors give the same detections\n", all ? "PASS" : "FAIL", passed,
              @NAME@::kVectorCount);
  return all ? 0 : 1;
}
