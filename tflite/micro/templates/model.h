// The TFLite file of @NAME@: @BYTES@ bytes.
@HEADER@
#ifndef @GUARD@_MODEL_H_
#define @GUARD@_MODEL_H_

#include <cstddef>

namespace @NAME@ {

constexpr std::size_t kModelSize = @BYTES@;
extern const unsigned char kModel[kModelSize];

}  // namespace @NAME@

#endif  // @GUARD@_MODEL_H_
