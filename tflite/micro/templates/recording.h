// A recording as @NAME@ takes it, and what is detected in it.
#ifndef @GUARD@_RECORDING_H_
#define @GUARD@_RECORDING_H_

#include <cstdint>

namespace @NAME@ {

struct Detection {
  int step;
  int word;
};

constexpr int kSteps = @STEPS@;
constexpr int kRecordingSize = @SIZE@;
extern const @TYPE@ kRecording[kRecordingSize];

constexpr int kDetectionCount = @DETECTIONS@;
extern const Detection kDetections[];

}  // namespace @NAME@

#endif  // @GUARD@_RECORDING_H_
