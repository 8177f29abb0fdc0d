#include "@NAME@_recording.h"

namespace @NAME@ {

const @TYPE@ kRecording[kRecordingSize] = {
@VALUES@
};

const Detection kDetections[] = {
@FOUND@
};

}  // namespace @NAME@
