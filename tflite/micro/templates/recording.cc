#include "@NAME@_recording.h"

namespace @NAME@ {

const @TYPE@ kRecording[@SIZE@] = {
@VALUES@
};

const Detection kDetections[] = {
@FOUND@
};

}  // namespace @NAME@
