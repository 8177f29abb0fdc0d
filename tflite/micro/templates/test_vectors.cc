#include "@NAME@_test_vectors.h"

namespace @NAME@ {

@DEFINITIONS@

}  // namespace @NAME@
