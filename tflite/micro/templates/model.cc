#include "@NAME@_model.h"

namespace @NAME@ {

alignas(16) const unsigned char kModel[kModelSize] = {
@ROWS@
};

}  // namespace @NAME@
