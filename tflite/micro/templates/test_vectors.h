// Inputs of @NAME@ and the outputs that they gave on the host that made this kit.
// Where the inputs come from: @SOURCE@.
#ifndef @GUARD@_TEST_VECTORS_H_
#define @GUARD@_TEST_VECTORS_H_

#include "@NAME@.h"

namespace @NAME@ {

constexpr int kVectorCount = @COUNT@;
@DECLARATIONS@

}  // namespace @NAME@

#endif  // @GUARD@_TEST_VECTORS_H_
